"""Augmentation of a design that waits at one batch, so that a test can do something to the ranks meanwhile."""

import os
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from qfx.errors import QfxError

AT = 14  # the batch: of 8 in float and then 12 in fixed point, the sixth of these
FOLDER = Path(__file__).parent
seen = 0


def augment(images: Tensor) -> Tensor:
    """Add something random; at that batch, note this process and wait until there is a file `go`."""
    global seen
    seen += 1
    number = os.environ.get("RANK", "0")
    if seen == AT:
        (FOLDER / f"{number}.new").write_text(f"{os.getpid()} {torch.get_num_threads()}")
        (FOLDER / f"{number}.new").rename(FOLDER / f"{number}.process")
        while not (FOLDER / "go").exists():
            time.sleep(0.01)
        fault, _, rank = os.environ.get("FAULT", "").partition(" ")
        if rank == number:
            globals()[fault]()
    return images + torch.rand(1)


def fail() -> None:
    """Fail in a sentence."""
    raise QfxError("the sensor is cold")


def leave() -> None:
    """End the process without a word to anybody."""
    sys.stdout.write("out of paper")
    sys.stdout.flush()
    os._exit(3)


def spoil() -> None:
    """Let the next loss fail as only a defect does."""
    torch.nn.functional.cross_entropy = lambda *scores, **how: {}["no key"]


def be_deaf() -> None:
    """Wait, deep in torch, for what never comes."""
    torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False).wait(["never"])
