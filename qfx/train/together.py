"""One network on several ranks of torch.distributed: equal formats, averaged gradients, equal buffers."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from qfx.errors import TrainError
from qfx.nn import quantizers
from qfx.nn.inputs import taken
from qfx.nn.ranks import alone, gather, ranks

Run = tuple[int, int, Path, Path]  # width (0: float), entry of training.front, where it starts from, its checkpoints


def synchronous(model: nn.Module, some_idle: bool = True) -> nn.Module:
    """Return what is to be called in training: the network itself, or one that averages gradients over ranks.

    To be made anew when parameters begin or cease to be learned.

    Args:
        some_idle: whether a forward may leave out parameters that are learned, as `leaves_out` says; looking for them
            in each step costs time.

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
    return DistributedDataParallel(model, find_unused_parameters=some_idle)


def leaves_out(model: nn.Module, x: Tensor) -> bool:
    """Return whether, on several ranks, what ``model`` makes of ``x`` leaves out a parameter that is to be learned.

    The model runs once, alone; its buffers and torch's random numbers are left as they were.
    """
    if ranks() == 1:
        return False
    kept = [(buffer, buffer.clone()) for buffer in model.buffers()]
    devices = [] if x.device.type == "cpu" else [x.device]
    with alone(), torch.random.fork_rng(devices, device_type=x.device.type), taken(x):
        result = model(x)
    for buffer, before in kept:
        buffer.copy_(before)
    reached = _reached(result if isinstance(result, tuple | list) else (result,))
    idle = any(parameter.requires_grad and id(parameter) not in reached for parameter in model.parameters())
    return any(gather(idle))


def _reached(results: Iterable[Any]) -> set[int]:
    """The ids of the parameters that results have gradients to."""
    seen: set[Any] = set()
    ahead = [result.grad_fn for result in results if isinstance(result, Tensor)]
    while ahead:
        node = ahead.pop()
        if node is not None and node not in seen:
            seen.add(node)
            ahead += [before for before, _ in node.next_functions]
    return {id(node.variable) for node in seen if hasattr(node, "variable")}


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
