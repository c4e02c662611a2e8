"""Quantized distillation: the scores of a float teacher are targets beside the labels."""

import zlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qfx.train.settings import Distill


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
def taught(teacher: nn.Module, x: Tensor) -> Tensor:
    """Return the teacher's scores (N, classes) in float32, outside of autocast."""
    with torch.autocast(x.device.type, enabled=False):
        wanted: Tensor = teacher(x)
    return wanted.float()


def fingerprint(teacher: nn.Module | None) -> int | None:
    """Return a checksum of a teacher's weights."""
    if teacher is None:
        return None
    checksum = 0
    for tensor in teacher.state_dict().values():
        checksum = zlib.crc32(tensor.detach().cpu().contiguous().numpy().tobytes(), checksum)
    return checksum
