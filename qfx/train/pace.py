"""When to tell how far training is."""

import time

_EVERY = 1.0  # seconds


class Pace:
    """A clock that says once a second that it is time."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def is_due(self) -> bool:
        """Whether a second has passed since this was last true."""
        now = time.monotonic()
        if now - self._told < _EVERY:
            return False
        self._told = now
        return True
