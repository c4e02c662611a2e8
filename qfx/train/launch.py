"""`qfx train --ranks N`: this process is rank 0 of N; it starts the others (`qfx.train.worker`), and none outlives it.

Each has a session of its own: Ctrl-C in a terminal reaches rank 0 alone, which agrees on it with the others
(`qfx.train.interrupts`). Their stdin is a pipe that closes when rank 0 is gone, however it ended. A thread watches:
it interrupts rank 0 where one has failed, and ends the process where the main thread, deep in torch, does not heed it.
"""

from __future__ import annotations

import _thread
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

from qfx.design import Design
from qfx.errors import TrainError, UsageError
from qfx.train.parallel import same_modules
from qfx.train.worker import INTERRUPTED, heard, may_follow

Leave = Callable[[BaseException], None]  # ends the process at once, as the error would have ended it

_HERE = "127.0.0.1"
_MOMENT = 0.5  # seconds in which ranks that end for one reason have said so
_PATIENCE = 5.0  # seconds in which what is to end has ended
_LINES = 12  # of what a rank said that failed
_ENDED = " must train to the end, but was {}: the same command carries on from the last checkpoint"
_SAYING = (
    " must train to the end, but {}: mend it, and the same command carries on from the last checkpoint. It said last:"
)


@contextmanager
def launched(design: Design, ranks: int, leave: Leave) -> Iterator[None]:
    """Within the block the other ranks run and wait in `qfx.train.team.joined` for this process, which is rank 0.

    Torch's threads are shared out.

    Raises:
        UsageError: a batch has too few inputs for so many ranks.
        TrainError: another rank has failed or was ended; its number is named.
    """
    _require_inputs(design, ranks)
    before = torch.get_num_threads()
    threads = max(before // ranks, 1)
    store = _meeting()  # open as long as the block
    common = _common(store, ranks, threads)
    torch.set_num_threads(threads)
    try:
        with _environment({**common, **_number(0)}), _Others(leave).running(design, ranks, common):
            yield
    finally:
        torch.set_num_threads(before)


def _require_inputs(design: Design, ranks: int) -> None:
    training = design.content.training
    most = training.batch // training.accumulate
    if ranks > most:
        raise UsageError(
            f"{design.place('training.batch')}: --ranks must be at most {most}, so that each rank has an input of each "
            f"part of a batch, not {ranks}: enlarge training.batch, or ask for fewer"
        )


def _meeting() -> dist.TCPStore:
    """Open the store in which the ranks find each other, on a free port that this machine alone can reach."""
    listening = socket.create_server((_HERE, 0))
    port = listening.getsockname()[1]
    return dist.TCPStore(_HERE, port, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach())


def _common(store: dist.TCPStore, ranks: int, threads: int) -> dict[str, str]:
    """The environment of every rank, as torchrun names it."""
    to_itself = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]
    return {
        "MASTER_ADDR": _HERE,
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # it is open already
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "OMP_NUM_THREADS": str(threads),
        **({"GLOO_SOCKET_IFNAME": to_itself[0]} if to_itself else {}),
    }


def _number(rank: int) -> dict[str, str]:
    return {"RANK": str(rank), "LOCAL_RANK": str(rank)}


def _ended_by(number: int) -> str:
    if number == signal.SIGKILL:
        return "killed, as happens where memory runs out"
    return f"ended by signal {number} ({signal.strsignal(number)})"


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@dataclass
class _Rank:
    """Another rank: its process, and what is known of it."""

    number: int
    process: subprocess.Popen[str]
    ready: bool = False
    interrupted: bool = False
    failed: str = ""  # how, in words
    follows: bool = False  # whether that may be since another one failed
    said: deque[str] = field(default_factory=lambda: deque(maxlen=_LINES))

    def kill(self) -> None:
        """End it, and all that it has started."""
        if self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def error(self) -> TrainError:
        """What it failed of."""
        return TrainError("\n  ".join([f"rank {self.number}{self.failed}", *self.said]))


class _Others:
    """The other ranks, and the threads that listen to them and watch."""

    def __init__(self, leave: Leave) -> None:
        self._leave = leave
        self._ranks: list[_Rank] = []
        self._failed: list[_Rank] = []  # in the order in which it was seen
        self._changed = threading.Condition()  # of what is known of ranks
        self._bell, self._rope = os.pipe()  # a byte for each signal; 0 where something else has happened
        self._threads = [threading.Thread(target=self._watch, daemon=True)]
        self._left = threading.Event()  # the main thread has left the block
        self._stopped = False  # a second signal has come
        self._over = False  # they end because we want it

    @contextmanager
    def running(self, design: Design, ranks: int, environment: Mapping[str, str]) -> Iterator[None]:
        """Start the ranks; the block begins when all are ready, and none is left when it has ended."""
        os.set_blocking(self._rope, False)
        before = signal.set_wakeup_fd(self._rope, warn_on_full_buffer=False)
        try:
            try:
                self._threads[0].start()
                self._start(design, ranks, environment)
                yield
                self._over = True
                self._join(_PATIENCE)  # they have done their share, and end by themselves
            finally:
                self._leave_block()
        except BaseException as error:
            if reason := self._reason(error):
                raise reason from error
            raise
        finally:
            self._end()
            self._join(_PATIENCE)
            signal.set_wakeup_fd(before)
            self._threads[0].join()
            os.close(self._rope)
            os.close(self._bell)

    def _start(self, design: Design, ranks: int, environment: Mapping[str, str]) -> None:
        job = json.dumps([str(design.folder), design.dump(), design.entry])
        for number in range(1, ranks):
            process = subprocess.Popen(
                [sys.executable, "-m", "qfx.train.worker", job],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
                env={**os.environ, **environment, **same_modules(), **_number(number)},
            )
            self._ranks.append(_Rank(number, process))
            self._threads.append(threading.Thread(target=self._listen, args=[self._ranks[-1]], daemon=True))
            self._threads[-1].start()
        with self._changed:
            self._changed.wait_for(lambda: self._failed or all(rank.ready for rank in self._ranks))
        if self._failed:
            raise RuntimeError("another rank has failed")  # `_reason` says which

    def _listen(self, rank: _Rank) -> None:
        """Take up what a rank tells and says, and how it ends."""
        assert rank.process.stdout is not None  # asked for above
        for line in rank.process.stdout:
            told = heard(line)
            if told.get("ready"):
                self._note(rank, ready=True)
            elif told.get("error"):
                rank.said.clear()  # a sentence says all
                self._note(rank, failed=f": {told['error']}", follows=told["follows"])
            elif told:
                self._note(rank, failed=_SAYING.format("failed"), follows=told["follows"])
            elif line.strip() and not rank.failed:
                rank.said.append(line.rstrip())
        code = rank.process.wait()
        if code == INTERRUPTED:
            self._note(rank, interrupted=True)
        elif code < 0:
            self._note(rank, failed=_ENDED.format(_ended_by(-code)))
        elif code:
            self._note(rank, failed=_SAYING.format(f"left with {code}"))

    def _note(self, rank: _Rank, **news: Any) -> None:
        with self._changed:
            if rank.failed or self._over:
                return
            for name, value in news.items():
                setattr(rank, name, value)
            if "failed" in news:
                self._failed.append(rank)
                os.write(self._rope, b"\0")
            self._changed.notify_all()

    def _watch(self) -> None:
        """Wait for a failure or a second signal; let the main thread leave the block then, or else leave for it."""
        signals = 0
        while signals < 2 and not self._failed and not self._left.is_set():
            signals += os.read(self._bell, 1)[0] in (signal.SIGINT, signal.SIGTERM)
        if self._left.is_set():
            return
        self._stopped = not self._failed
        if self._failed:
            time.sleep(_MOMENT)
        self._end()
        with self._changed:
            if self._failed and not self._left.is_set():
                _thread.interrupt_main(signal.SIGTERM)
        if not self._left.wait(_PATIENCE):
            self._leave(self._first().error() if self._failed else KeyboardInterrupt())

    def _leave_block(self) -> None:
        """From here on nothing interrupts the main thread but the user."""
        with self._changed:
            self._left.set()
        os.write(self._rope, b"\0")

    def _reason(self, error: BaseException) -> BaseException | None:
        """Return what an error of this rank comes from, if it comes from the others."""
        if self._stopped:
            return KeyboardInterrupt()
        with self._changed:
            if may_follow(error):
                self._changed.wait_for(lambda: any(rank.failed or rank.interrupted for rank in self._ranks), 2.0)
            elif not isinstance(error, KeyboardInterrupt):
                return None
        if self._failed:
            time.sleep(_MOMENT)
            return self._first().error()
        return KeyboardInterrupt() if any(rank.interrupted for rank in self._ranks) else None

    def _first(self) -> _Rank:
        """The rank that the others followed."""
        return min(self._failed, key=lambda rank: rank.follows)

    def _end(self) -> None:
        with self._changed:
            self._over = True
        for rank in self._ranks:
            rank.kill()

    def _join(self, patience: float) -> None:
        """Wait until the other ranks have ended, but not longer than ``patience``."""
        end = time.monotonic() + patience
        for thread in self._threads[1:]:
            thread.join(max(end - time.monotonic(), 0))
