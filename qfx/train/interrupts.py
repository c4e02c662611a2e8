"""Signals that wait until a step of training is whole."""

import signal
import threading
from types import FrameType
from typing import Any, Self

from qfx.nn.ranks import gather, ranks

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Within the block the first SIGINT or SIGTERM is only noted; `obey` lets it act. A second one acts at once.

    Without ``hold``, or in a thread of its own, signals act as ever.
    """

    def __init__(self, hold: bool) -> None:
        self._hold = hold and threading.current_thread() is threading.main_thread()
        self.wanted: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if self._hold:
            for number in _SIGNALS:
                before = signal.getsignal(number)
                if before is not None and before != signal.SIG_IGN:
                    self._before[number] = before
                    signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()
        if error[0] is None:
            self.obey()

    def agreed(self) -> bool:
        """Whether a signal has come, to any rank: then all of them are to obey it."""
        if ranks() > 1:
            self.wanted = next((wanted for wanted in gather(self.wanted) if wanted), None)
        return self.wanted is not None

    def obey(self) -> None:
        """Do what the signal would have done, if one has come."""
        if self.wanted:
            number, self.wanted = self.wanted, None
            self._restore()
            signal.raise_signal(number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.wanted = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before = {}
