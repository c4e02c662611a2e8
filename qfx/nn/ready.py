"""What convert asks of a float network before it is traced: all of it is to be seen, and its parameters are there."""

from collections.abc import Iterator

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from qfx.errors import LowerError
from qfx.nn.calibrate import quantizers
from qfx.nn.inputs import require_input, require_model

_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)
_WITH_WEIGHTS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.Linear,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
)


def require_ready(model: nn.Module, example: Tensor | None) -> None:
    """Raise LowerError unless ``model`` is a float network whose trace shows all that it computes.

    Every module that is in the way is named, with what to do.
    """
    require_model(model, LowerError)
    if isinstance(model, fx.GraphModule) and quantizers(model):
        raise LowerError("model must be a float network, not one that qfx.convert made: convert the network before it")
    _refuse_brevitas(model)
    lines = [
        f"  {path or 'the model itself'} ({type(module).__name__}): {reason}"
        for path, module in model.named_modules()
        for reason in _reasons(module)
    ]
    if lines:
        raise LowerError("the model must be ready for convert, but is not:\n" + "\n".join(lines))
    _require_float32(model)
    _require_variances(model)
    if example is not None:
        require_input("example", example, LowerError)
        if example.dtype != torch.float32:
            raise LowerError(f"example must be float32, not {_name(example.dtype)}: give example.float()")


def _refuse_brevitas(model: nn.Module) -> None:
    for path, module in model.named_modules():
        if any(kind.__module__.startswith("brevitas.") for kind in type(module).__mro__):
            place = f"'{path}'" if path else "the model itself"
            raise LowerError(
                f"model must be a float network, not one with layers of Brevitas ({place} is a "
                f"{type(module).__name__}): use qfx.interop.brevitas.from_brevitas(model)"
            )


def _reasons(module: nn.Module) -> Iterator[str]:
    """What keeps one module, without those in it, from being converted."""
    kind = type(module)
    if hasattr(module, "_orig_mod"):
        yield "it must be the module itself, not what torch.compile made of it: convert it first, then compile"
    elif isinstance(module, torch.jit.ScriptModule):
        yield "it must be the module itself, not what torch.jit.script or trace made of it: convert it before"
    elif isinstance(module, _WRAPPERS):
        yield "it must be the network inside of it: convert its .module, then wrap the result"
    elif isinstance(module, LazyModuleMixin):
        yield "it must know its shapes: run the network on one batch before convert"
    elif hasattr(module, "parametrizations"):
        for name in module.parametrizations:
            yield _computed(name, "torch.nn.utils.parametrize.remove_parametrizations")
    elif not kind.__module__.startswith("torch."):
        for base in _WITH_WEIGHTS:
            if isinstance(module, base):
                yield f"it must be nn.{base.__name__} itself, not a subclass of it, which may compute something else"
    for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values()):
        if not isinstance(module, LazyModuleMixin):  # whose hooks are torch's own
            yield _hooked(hook)


def _hooked(hook: object) -> str:
    match hook:
        case WeightNorm():
            return _computed(hook.name, "torch.nn.utils.remove_weight_norm")
        case SpectralNorm():
            return _computed(hook.name, "torch.nn.utils.remove_spectral_norm")
        case BasePruningMethod():
            return _computed(hook._tensor_name, "torch.nn.utils.prune.remove")
    return "it must have no forward hook, which convert would lose: remove the hook, and do in forward what it does"


def _computed(name: str, remove: str) -> str:
    return f"its {name} must be a parameter, not computed from others: call {remove}(layer, '{name}') before convert"


def _require_float32(model: nn.Module) -> None:
    for name, values in (*model.named_parameters(), *model.named_buffers()):
        if values.is_meta:
            raise LowerError(
                f"the network must have values, but '{name}' is on the device meta: call model.to_empty(device='cpu') "
                "and load a state_dict"
            )
        if (values.is_floating_point() or values.is_complex()) and values.dtype != torch.float32:
            raise LowerError(
                f"the network must be float32, but '{name}' is {_name(values.dtype)}: convert model.float()"
            )


def _require_variances(model: nn.Module) -> None:
    for path, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_var is not None:
            least = (module.running_var + module.eps).min().item()
            if not least > 0:
                raise LowerError(
                    f"running_var of '{path or type(module).__name__}' must be above 0 where eps is added, not "
                    f"{least:.3g}: load another checkpoint, or call reset_running_stats() and run some batches "
                    "in training mode"
                )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
