"""exact: the user's own forward on the layers used in training, with no rounding that the formats do not ask for."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from qfx.errors import TrainError
from qfx.nn.arithmetic import plain_floats
from qfx.nn.calibrate import name_quantizers
from qfx.nn.inputs import require_converted, require_finite, require_input, taken
from qfx.nn.trace import FIXED_LAYERS


def exact(model: nn.Module) -> Callable[..., Any]:
    """Return a function that evaluates ``model`` exactly, on the device where model and inputs are.

    A layer's static bound chooses its arithmetic: float32 below 2**24, float64 below 2**53, else int64. The function
    runs the model's own forward in evaluation mode, without gradients, with autocast and torch's short cuts (TF32,
    bfloat16, Winograd) off; inputs are real values of any float or integer dtype, and results are float64. Model and
    torch's settings are left as they were.

    Raises:
        TrainError: the model is not converted; (the function) an input is no tensor, is empty or has a shape that the
            network does not take, a value of it or of the model is not finite, a bound leaves int64, or a quantizer was
            never calibrated.
    """
    require_converted(model)

    def evaluate(*inputs: Tensor) -> Any:
        if not inputs:
            raise TrainError("the exact network must be given an input, but was given none")
        for x in inputs:
            require_input("the input", x)
            if not x.isfinite().all():
                raise TrainError("the input must be finite, but NaN or infinity is among its values: look at the data")
        require_finite(model)
        name_quantizers(model)
        device = inputs[0].device.type
        with taken(inputs[0]), torch.no_grad(), plain_floats(device), _exactly(model):
            return model(*(x.to(torch.float64) for x in inputs))

    return evaluate


def exact_values(model: nn.Module) -> Callable[..., dict[tuple[str, int], Tensor]]:
    """Return a function that evaluates as ``exact`` does and tells what the model and each layer and quantizer gave.

    Its result maps module path and number of the call (1, 2, ...) to the tensor. A layer with an ``output_quant`` is
    told by that one; the model's own results have the path "" and the numbers 1, 2, ...
    """

    def evaluate(*inputs: Tensor) -> dict[tuple[str, int], Tensor]:
        found: dict[tuple[str, int], Tensor] = {}
        calls: Counter[str] = Counter()

        def keep(path: str, result: Tensor) -> None:
            calls[path] += 1
            found[path, calls[path]] = result

        hooks = [
            module.register_forward_hook(lambda _, __, result, path=path: keep(path, result))
            for path, module in model.named_modules()
            if isinstance(module, FIXED_LAYERS) and not hasattr(module, "output_quant")
        ]
        try:
            results = exact(model)(*inputs)
        finally:
            for hook in hooks:
                hook.remove()
        for result in results if isinstance(results, tuple | list) else (results,):
            keep("", result)
        return found

    return evaluate


@contextmanager
def _exactly(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    layers = [module for module in modes if hasattr(module, "exact")]
    try:
        model.eval()
        for layer in layers:
            layer.exact = True  # type: ignore[assignment]
        yield
    finally:
        for layer in layers:
            layer.exact = False  # type: ignore[assignment]
        for module, training in modes.items():
            module.training = training
