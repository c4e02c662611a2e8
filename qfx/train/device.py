"""Where a network is trained: on a GPU where torch finds one, each rank on its own."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from qfx.errors import TrainError

AUTO = "auto"


def choose(asked: str) -> torch.device:
    """Return the device that ``asked`` names: ``cpu``, ``cuda``, ``cuda:1``, or ``auto``, a GPU if there is one.

    A GPU without a number is that of this rank, ranks in turn where there are more of them than GPUs.

    Raises:
        TrainError: there is no such device here, or it cannot compute in float64, which exact evaluation needs.
    """
    if asked == AUTO:
        asked = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(asked)
        if device.type == "cuda" and device.index is None and torch.cuda.is_available():
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        torch.zeros(1, dtype=torch.float64, device=device)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        raise TrainError(
            f"device must be auto, or one that torch can train on here, such as cpu or cuda, not {asked}: "
            f"{str(error).splitlines()[0]}"
        ) from error
    return device


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Let a GPU compute the same bits each time in the block, and float32 as float32, where torch has kernels for it.

    Where it has none, torch warns with the name of the operation. On a CPU nothing is changed.

    Source: PyTorch documentation, Reproducibility.
    """
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory
    try:
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.utils.deterministic.fill_uninitialized_memory = filled


def backend(device: torch.device) -> str:
    """Return what torch.distributed is to carry tensors of a device with, beside those of the CPU.

    NCCL serves ranks that have a GPU each; gloo, through the host, also those that share one.
    """
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return "cpu:gloo,cuda:nccl" if device.type == "cuda" and local <= torch.cuda.device_count() else "gloo"
