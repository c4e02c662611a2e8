"""Quantized distillation: the scores of a float teacher are targets beside the labels."""

import zlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qfx.errors import TrainError
from qfx.nn.inputs import taken
from qfx.train.settings import Distill


def require_scores(name: str, scores: object, classes: int | None = None, remedy: str = "") -> None:
    """Raise TrainError unless ``scores`` of what is called ``name`` are (N, classes)."""
    shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
    if not isinstance(scores, Tensor) or scores.dim() != 2:
        raise TrainError(f"{name} must give one score a class, a tensor (N, classes), not {shape}{remedy}")
    if classes not in (None, scores.shape[1]):
        raise TrainError(f"{name} must give {classes} scores an input, as the network does, not {scores.shape[1]}")


def distilled(loss: Tensor, scores: Tensor, wanted: Tensor, distill: Distill) -> Tensor:
    """Return the loss against labels and teacher together, by their weights.

    ``(1 - weight) * loss + weight * T**2 * KL(softmax(wanted / T) || softmax(scores / T))``; the square keeps the size
    of gradients the same for every temperature T.

    Args:
        loss: against the labels.
        scores: of the student, (N, classes).
        wanted: the teacher's, (N, classes).

    Source: Hinton et al., Distilling the Knowledge in a Neural Network, 2015, section 2; with a quantized student:
    Polino et al., Model Compression via Distillation and Quantization, 2018, section 3.
    """
    t = distill.temperature
    soft = F.kl_div(F.log_softmax(scores / t, 1), F.log_softmax(wanted / t, 1), reduction="batchmean", log_target=True)
    return (1 - distill.weight) * loss + distill.weight * t * t * soft


@torch.no_grad()
def taught(teacher: nn.Module, x: Tensor, classes: int | None = None) -> Tensor:
    """Return the teacher's scores (N, classes) in float32, outside of autocast; refuse another number of classes."""
    with taken(x, name="the teacher"), torch.autocast(x.device.type, enabled=False):
        wanted: Tensor = teacher(x)
    require_scores("the teacher", wanted, classes)
    return wanted.float()


def fingerprint(teacher: nn.Module | None) -> int | None:
    """Return a checksum of a teacher's weights."""
    if teacher is None:
        return None
    checksum = 0
    for tensor in teacher.state_dict().values():
        checksum = zlib.crc32(tensor.detach().cpu().contiguous().numpy().tobytes(), checksum)
    return checksum
