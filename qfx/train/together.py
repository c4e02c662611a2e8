"""One network on several ranks of torch.distributed: equal formats, averaged gradients, equal buffers."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from qfx.errors import TrainError
from qfx.nn import quantizers
from qfx.nn.ranks import gather, ranks

Run = tuple[int, int, Path, Path]  # width (0: float), entry of training.front, where it starts from, its checkpoints


def synchronous(model: nn.Module) -> nn.Module:
    """Return what is to be called in training: the network itself, or one that averages gradients over ranks.

    To be made anew when parameters begin or cease to be learned.

    Raises:
        TrainError: the ranks have different formats.
    """
    if ranks() == 1:
        return model
    names = {path: str(quantizer.format()) for path, quantizer in quantizers(model).items() if quantizer.calibrated}
    for number, other in enumerate(gather(names)):
        different = [path for path in names.keys() | other.keys() if names.get(path) != other.get(path)]
        if different:
            path = min(different)
            raise TrainError(
                f"quantizer '{path}' must have one format on all ranks, not {names.get(path)} and, on rank {number}, "
                f"{other.get(path)}: call init_process_group before qfx.calibrate"
            )
    return DistributedDataParallel(model, find_unused_parameters=True)


def call(run: Run | None) -> None:
    """Let the other ranks, which `qfx.train.team` keeps waiting, join a run; None: there are no more."""
    if ranks() > 1:
        dist.broadcast_object_list([run], src=0)


def without_averaging(network: nn.Module) -> AbstractContextManager[None]:
    """Within the block gradients stay on their rank, to be averaged with those of the last part of a batch."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()


def same_digits(model: nn.Module) -> None:
    """Give all ranks the K, and their binary points, of the first one."""
    for quantizer in quantizers(model).values() if ranks() > 1 else ():
        if quantizer.k is not None:
            dist.broadcast(quantizer.k.detach(), 0)
            dist.broadcast(quantizer.frac.detach(), 0)


def same_buffers(model: nn.Module) -> nn.Module:
    """Give all ranks the buffers of the first one: layers that are not ours keep their rank's own statistics."""
    if ranks() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)
    return model
