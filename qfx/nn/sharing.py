"""What two layers have in common: one quantizer, or all that a module called twice owns but its formats."""

from collections.abc import Iterator

from torch import nn

from qfx.nn.quantizer import Quantizer


def share(layer: nn.Module, name: str, quantizer: Quantizer) -> None:
    """Let ``layer`` use a quantizer that another module owns; it is saved and counted there only."""
    layer._modules.pop(name, None)
    object.__setattr__(layer, name, quantizer)


def borrow(layer: nn.Module, name: str, parameter: nn.Parameter) -> None:
    """Let ``layer`` use a parameter that another module owns; it is saved and counted there only."""
    layer._parameters.pop(name, None)
    object.__setattr__(layer, name, parameter)


def take(layer: nn.Module, name: str, other: nn.Module) -> None:
    """Let ``layer`` have a parameter of ``other``, whose place it takes: its own, or borrowed as ``other`` had it."""
    if name in other._parameters:
        setattr(layer, name, getattr(other, name))
    else:
        borrow(layer, name, getattr(other, name))


def tie(layer: nn.Module, first: nn.Module) -> None:
    """Make ``layer`` another call of ``first``: its parameters, statistics and constants are those of ``first``.

    They are saved and counted there only. What ``layer`` keeps for itself is what it reads and gives: ``input_quant``,
    ``output_quant``.
    """
    for name in list(layer._parameters):
        borrow(layer, name, getattr(first, name))
    layer._buffers = first._buffers
    layer._non_persistent_buffers_set = {*first._buffers}
    for name, quantizer in first.named_children():
        if isinstance(quantizer, Quantizer) and name not in ("input_quant", "output_quant"):
            share(layer, name, quantizer)


def used(layer: nn.Module) -> Iterator[tuple[str, Quantizer]]:
    """Each quantizer that ``layer`` uses, its own and those that others own, with its name below the layer."""
    for part, module in layer.named_modules():
        for name, quantizer in {**vars(module), **module._modules}.items():
            if isinstance(quantizer, Quantizer):
                yield ".".join(filter(None, (part, name))), quantizer
