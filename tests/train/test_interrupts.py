"""The first signal waits until a step is whole, the second acts at once: unless it is torchrun's copy of the first."""

import signal
import time
from collections.abc import Iterator

import pytest

from qfx.train import interrupts
from qfx.train.interrupts import Interrupts


@pytest.fixture(autouse=True)
def default() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # not what a shell's jobs have
    yield
    signal.signal(signal.SIGINT, before)


def test_a_second_signal_acts_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), Interrupts(hold=True) as held:
        signal.raise_signal(signal.SIGINT)
        assert held.agreed()
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it has not acted")


def test_the_copy_that_torchrun_sends_does_nothing_before_and_after_the_first_acts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with pytest.raises(KeyboardInterrupt), Interrupts(hold=True) as held:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert held.agreed()
        held.obey()
    signal.raise_signal(signal.SIGINT)


def test_a_second_signal_that_comes_later_under_torchrun_acts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setattr(interrupts, "_ECHO", 0.01)
    with pytest.raises(KeyboardInterrupt), Interrupts(hold=True):
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.02)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it has not acted")
