"""The watchdog: when training leaves the finite numbers, it names the layer where that began."""

import torch
from torch import Tensor, nn

from qfx.nn.ranks import alone
from qfx.train.distill import taught


@torch.no_grad()
def first_diverged(model: nn.Module, x: Tensor, teacher: nn.Module | None = None) -> str:
    """Return where the forward of ``model`` on ``x`` first holds a number that is not finite, as half a sentence.

    Where all of it is finite, the ``teacher`` may be what is not.

    The model runs once more, layer by layer; its state is left as it was.
    """
    if not torch.isfinite(x).all():
        return "the input holds NaN or infinity: look at the data"
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            return f"parameter '{name}' holds NaN or infinity: lower the learning rate, or clip gradients"
    found: list[str] = []

    def look(path: str, result: object) -> None:
        if isinstance(result, Tensor) and not torch.isfinite(result).all():
            found.append(path)

    hooks = [m.register_forward_hook(lambda _, __, y, path=path: look(path, y)) for path, m in model.named_modules()]
    kept = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        with alone():  # what this rank found, the others may not have
            model(x)
    finally:
        for hook in hooks:
            hook.remove()
        for buffer, before in kept:
            buffer.copy_(before)
    if found:
        return f"layer '{found[0]}' is the first to give NaN or infinity: lower the learning rate"
    if teacher is not None and not torch.isfinite(taught(teacher, x)).all():
        wrong = [f"its {key} holds" for key, values in teacher.state_dict().items() if not torch.isfinite(values).all()]
        return f"the teacher does not: {(wrong or ['it gives'])[0]} NaN or infinity: load other weights"
    return "no layer gives NaN or infinity: the loss function itself does"
