"""`qfx train` under torchrun: the first rank leads, the others join each run that it calls."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist

from qfx.design import Design
from qfx.nn.ranks import rank
from qfx.train import runs
from qfx.train.device import backend
from qfx.train.together import Run, call


@contextmanager
def joined(design: Design) -> Iterator[bool]:
    """Meet the processes that torchrun started; yield whether this one leads. The others have done their share by then.

    An error ends its process, and torchrun then ends the others.
    """
    dist.init_process_group(backend(runs.device_of(design)))
    if rank():
        _follow(design)
        yield False
    else:
        yield True
        call(None)
    dist.destroy_process_group()


def _follow(design: Design) -> None:
    data = runs.load_data(design)
    run: list[Run | None] = [None]
    while True:
        dist.broadcast_object_list(run, src=0)
        if run[0] is None:
            return
        runs.join(design, data, run[0])
