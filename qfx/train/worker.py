"""A rank that `qfx.train.launch` started: it joins the runs of rank 0, tells what it fails of, and ends with it.

What it tells is a JSON object a line on stdout: ``{"ready": true}``, or ``{"error": ..., "follows": ...}``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from qfx.design import Design
from qfx.errors import QfxError
from qfx.train.team import joined

INTERRUPTED = 130


def heard(line: str) -> dict[str, Any]:
    """Return what a line of a rank tells; nothing where it is something else that the rank said."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) and found.keys() & {"ready", "error"} else {}


def may_follow(error: BaseException | None) -> bool:
    """Whether an error may come from the end of another rank: torch says that by a RuntimeError, whatever follows."""
    return error is not None and (isinstance(error, RuntimeError) or may_follow(error.__cause__ or error.__context__))


def _tell(**message: object) -> None:
    sys.stdout.write(f"\n{json.dumps(message)}\n")
    sys.stdout.flush()


def _end_with_the_first() -> None:
    """Wait until rank 0 is gone, and with it the other end of stdin; then end all that this rank has started."""
    os.read(sys.stdin.fileno(), 1)
    os.killpg(0, signal.SIGKILL)


def main(job: str) -> int:
    """Do this rank's share of all runs of a design and return the exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.Thread(target=_end_with_the_first, daemon=True).start()
    folder, content, entry = json.loads(job)
    _tell(ready=True)
    try:
        with joined(Design.of(Path(folder), content, entry)):
            pass
    except KeyboardInterrupt:
        return INTERRUPTED
    except QfxError as error:
        _tell(error=str(error), follows=may_follow(error))
        return 1
    except BaseException as error:
        sys.stderr.write(traceback.format_exc())
        sys.stderr.flush()
        _tell(error="", follows=may_follow(error))
        return 1
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1])
    sys.stdout.flush()
    os._exit(code)  # torch's threads, in the midst of what failed, abort an orderly exit
