"""Git, as far as a report needs it: which commit a clone is at."""

from __future__ import annotations

import subprocess
from pathlib import Path


def commit(clone: Path) -> str | None:
    """Return the commit of a clone, short, with ``-dirty`` behind if files differ from it; None if it is no clone."""
    if not (clone / ".git").exists():
        return None
    command = ["git", "-C", str(clone), "describe", "--always", "--exclude=*", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
