"""Signals that wait until a step of training is whole."""

import os
import signal
import threading
import time
from types import FrameType
from typing import Any, Self

from qfx.nn.ranks import gather, ranks

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ECHO = 2.0  # seconds within which torchrun sends its ranks once more what a terminal has sent them


class Interrupts:
    """Within the block the first SIGINT or SIGTERM is only noted; `obey` lets it act. A second one acts at once,
    but for torchrun's copy of the first.

    Without ``hold``, or in a thread of its own, signals act as ever.
    """

    def __init__(self, hold: bool) -> None:
        self._hold = hold and threading.current_thread() is threading.main_thread()
        self.wanted: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._since = 0.0
        self._echoed = "TORCHELASTIC_RUN_ID" in os.environ  # torchrun has started this process

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
            try:
                signal.raise_signal(number)
            finally:
                if self._echoed:
                    signal.signal(number, signal.SIG_IGN)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.wanted is None:
            self.wanted, self._since = signal.Signals(number), time.monotonic()
            if not self._echoed:
                self._restore()
        elif time.monotonic() - self._since > _ECHO:
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before = {}
