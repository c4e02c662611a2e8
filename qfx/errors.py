"""The errors that a user of qfx can cause, one class for each part that finds them; and those of others in words."""

from pathlib import Path


class QfxError(Exception):
    """Base of every error whose message is meant for the user: what must hold, what was found, and where."""


class FormatError(QfxError):
    """A fixed-point format, or a value that must fit one, is not legal."""


class GraphError(QfxError):
    """A graph, or a graph file, breaks a rule of qfx/graph/SPEC.md."""


class LowerError(QfxError):
    """A torch model has a part that cannot become a fixed-point or a graph node."""


class PlanError(QfxError):
    """A graph cannot be placed on the board, or a plan does not belong to its graph."""


class EmitError(QfxError):
    """Files cannot be generated, or do not say what the graph says."""


class ToolError(QfxError):
    """An outside program is missing, failed, ran out of time, or was given what it cannot take."""


class DesignError(QfxError):
    """A design folder or one of its files is not as it must be."""


class UsageError(DesignError):
    """An argument of a command is wrong whatever design, network or board it is used on."""


class TrainError(QfxError):
    """Data, weights or settings make training or calibration impossible."""


class RecipeError(TrainError):
    """A recipe has an unknown key or an impossible value; ``key`` is the key's path, with dots."""

    def __init__(self, sentence: str, key: str = "") -> None:
        super().__init__(sentence)
        self.key = key


class FormatWarning(UserWarning):
    """A stated format loses many of the values that it is for."""


class MismatchError(QfxError):
    """Two engines computed different integers."""


def said(error: BaseException) -> str:
    """Return an exception in a line: its type, and its message where it has one."""
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def line_in(error: BaseException, path: Path) -> str:
    """Return ``:<line>`` of the last place in ``path`` that an exception passed."""
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == str(path) else None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f":{line}" if line else ""
