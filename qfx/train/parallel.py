"""Training runs side by side: each in a process of its own, which ends with the one that waits for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qfx.design import Design
from qfx.errors import QfxError, TrainError

Progress = Callable[[float, str], None]
Warn = Callable[[str], None]


class Children:
    """The processes of one step; leaving the block ends those that still run."""

    def __init__(self, side_by_side: int) -> None:
        self.threads = max((os.cpu_count() or 1) // side_by_side, 1)  # of each process
        self._running: list[subprocess.Popen[str]] = []
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._end()
        finally:  # a second interrupt must not leave a process that the caller would wait for
            self._end()

    def _end(self) -> None:
        self._closed = True
        with self._lock:
            for process in self._running:
                process.kill()

    def train_fixed(
        self, design: Design, start: Path, width: int, folder: Path, halfway: Path, progress: Progress, warn: Warn
    ) -> None:
        """Do what `runs.train_fixed` does, in a new process.

        Raises:
            TrainError: what the process found, or that it ended without a word.
            OSError: a file could not be written.
        """
        places = [str(place) for place in (start, folder, halfway)]
        job = json.dumps([str(design.folder), design.dump(), design.entry, width, *places])
        with self._lock:
            if self._closed:
                raise TrainError(f"training at {width} bits was stopped before it began")
            process = subprocess.Popen(
                [sys.executable, "-m", "qfx.train.parallel", job],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, **same_modules(), "OMP_NUM_THREADS": str(self.threads)},
            )
            self._running.append(process)
        said = ""
        with process:  # closes the pipe
            assert process.stdout is not None  # asked for above
            for line in process.stdout:
                message = _message(line)
                if "error" in message:
                    raise _error(message)
                if "warning" in message:
                    warn(message["warning"])
                elif message:
                    progress(message["done"], message["doing"])
                else:
                    said = line.strip() or said
        if process.returncode:
            raise TrainError(
                f"training at {width} bits must end well, but its process left with {process.returncode}: {said}"
            )


def same_modules() -> dict[str, str]:
    """The environment by which another Python finds the modules that this one does."""
    return {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def _message(line: str) -> dict[str, Any]:
    """What a line of the process tells us; nothing for a line that is not for us."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) and {"error", "warning", "done"} & found.keys() else {}


def _error(message: dict[str, Any]) -> Exception:
    if message["error"] == "OSError":
        return OSError(message["errno"], message["text"], message["filename"])
    return TrainError(message["text"])


def _tell(**message: object) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def main(job: str) -> int:
    """Do one run and tell its progress, its warnings or its error, a JSON object a line."""
    from qfx.train import runs

    folder, content, entry, width, start, target, halfway = json.loads(job)
    try:
        design = Design.of(Path(folder), content, entry)
        runs.train_fixed(
            design,
            runs.load_data(design),
            Path(start),
            width,
            Path(target),
            Path(halfway),
            lambda done, doing: _tell(done=done, doing=doing),
            lambda sentence: _tell(warning=sentence),
        )
    except QfxError as error:
        _tell(error=type(error).__name__, text=str(error))
        return 1
    except OSError as error:
        _tell(error="OSError", text=error.strerror or str(error), errno=error.errno, filename=error.filename)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
