"""When to tell how far training is, and how long the rest will take."""

import time

_EVERY = 1.0  # seconds


class Pace:
    """The clock of one run that begins at step ``first`` of ``steps``."""

    def __init__(self, first: int, steps: int) -> None:
        self._first, self._steps = first, steps
        self._start = self._told = time.monotonic()

    def is_due(self) -> bool:
        """Whether a second has passed since this was last true."""
        now = time.monotonic()
        if now - self._told < _EVERY:
            return False
        self._told = now
        return True

    def left(self, step: int) -> str:
        """The time that the remaining steps will take at the pace so far, in words."""
        passed = time.monotonic() - self._start
        seconds = round(passed / max(step - self._first, 1) * (self._steps - step))
        hours, minutes = seconds // 3600, seconds // 60 % 60
        return f"{hours} h {minutes} min left" if hours else f"{minutes} min {seconds % 60} s left"
