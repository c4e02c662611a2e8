"""Functions of a single element: in fixed point, a table of what they give for every code of their input."""

import copy
from collections.abc import Callable
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qfx.errors import LowerError
from qfx.fixed import TABLE_WIDTH, Overflow
from qfx.nn.calibrate import name_quantizers, quantizers
from qfx.nn.constants import Codes, quantized_codes
from qfx.nn.functional import code_range
from qfx.nn.quantizer import ELEMENTWISE, Quantizer, Spec
from qfx.nn.sharing import take

FUNCTIONS: tuple[type[nn.Module], ...] = (
    nn.Sigmoid,
    nn.Hardsigmoid,
    nn.Tanh,
    nn.SiLU,
    nn.Hardswish,
    nn.GELU,
    nn.Mish,
    nn.ELU,
    nn.Softplus,
    nn.LeakyReLU,
    nn.PReLU,
    nn.SELU,
    nn.CELU,
    nn.LogSigmoid,
    nn.Softsign,
    nn.Softshrink,
    nn.Hardshrink,
    nn.Tanhshrink,
    nn.Threshold,
)
"""The layers of torch that a Table stands for."""


class Table(nn.Module):
    """``y = output_quant(f(input_quant(x)))``, ``f`` a function of a single element: a table in the graph.

    In training ``f`` is computed on the tensor, and its gradient stands between those of the quantizers. In evaluation
    its values are looked up: ``f`` of every code of the input, computed in float64 on the CPU by one function for
    evaluation, exact evaluation and lowering, so that all three have the table's very entries.

    After ``learn`` the entries are parameters: ``f`` plus an ``offset`` for each code of the input, 0 at first. They
    are the quantization points of Polino et al. (2018, section 4): the gradient of each is the sum of those of the
    values that take it. That of the input has the slope between an entry's neighbours beside that of ``f``.

    One that was not calibrated is ``f`` itself, since it may stand in a float network: ``qfx.convert`` makes it another
    one, which refuses to run without formats. Exact evaluation, lowering and `qfx.train.fit` refuse it as they do any
    layer without formats, the last where it stands beside fixed-point layers.

    Args:
        function: takes and gives a tensor of one shape, and ``weight`` where there is one.
        weight: what it learns, like the slope of PReLU: the table follows.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        weight: nn.Parameter | None = None,
        *,
        input_spec: Spec = ELEMENTWISE,
        output_spec: Spec = ELEMENTWISE,
    ) -> None:
        super().__init__()
        self.function, self.weight = function, weight
        self.register_parameter("offset", None)
        self.input_quant = Quantizer(input_spec, axis=1)
        self.output_quant = Quantizer(output_spec, axis=1)
        self.plain = True  # it may stand in a float network
        self.exact = False

    @classmethod
    def from_float(cls, layer: nn.Module, input_spec: Spec, output_spec: Spec) -> Self:
        """Return the table of one of torch's FUNCTIONS, or of a Table in a float network; it shares the parameter."""
        if isinstance(layer, nn.PReLU | Table):
            function = layer.function if isinstance(layer, Table) else F.prelu
            new = cls(function, input_spec=input_spec, output_spec=output_spec)
            take(new, "weight", layer)
        else:
            own = copy.copy(layer)
            if hasattr(own, "inplace"):
                own.inplace = False
            new = cls(own, input_spec=input_spec, output_spec=output_spec)
        return new.fixed()

    def fixed(self) -> Self:
        """Refuse from now on to run without formats, and return the table itself."""
        self.plain = False
        return self

    @property
    def in_float(self) -> bool:
        """Whether it gives ``f`` itself, as a layer of a float network that was not calibrated."""
        calibrated = self.input_quant.calibrated and self.output_quant.calibrated
        return self.plain and not self.exact and not calibrated and self._unobserved()

    def forward(self, x: Tensor) -> Tensor:
        if self.in_float:
            return self._of(x)
        x = self.input_quant(x)
        if not self._unobserved():
            return self.output_quant(self._of(x))
        if self.training:
            return self.output_quant(self._learned(x))
        return self.output_quant(self._looked_up(x)).to(x.dtype)

    def _unobserved(self) -> bool:
        return self.input_quant.observer is None and self.output_quant.observer is None

    def learn(self) -> None:
        """Let training move each entry of the table; the input's width must be the last by now."""
        self.require_narrow()
        self.offset = nn.Parameter(torch.zeros(1 << self.input_quant.width))

    def constants(self) -> dict[str, Codes]:
        """Return ``table``: an entry for each code of the input, lowest first."""
        entries = self._entries()
        if not entries.isfinite().all():
            raise LowerError(
                f"the function of '{self.output_quant.owner}' must be finite at every code of its input, but of "
                f"{self.input_quant.format()} it is {entries[~entries.isfinite()][0].item()} at "
                f"{self._inputs()[~entries.isfinite()][0].item():g}"
            )
        return {"table": quantized_codes(self.output_quant, entries.to(self.output_quant.frac.device), (0,))}

    def require_narrow(self) -> None:
        """Raise LowerError where the table would have too many entries."""
        if self.input_quant.width > TABLE_WIDTH:
            raise LowerError(
                f"the input of the table '{self.output_quant.owner}' must be at most {TABLE_WIDTH} bits wide at point "
                f"'elementwise', not {self.input_quant.width}"
            )

    def _of(self, x: Tensor) -> Tensor:
        return self.function(x) if self.weight is None else self.function(x, self.weight.to(x))

    def _learned(self, x: Tensor) -> Tensor:
        """``f`` and what training has added to it, at codes of the input."""
        y = self._of(x)
        if self.offset is None:
            return y
        return y + _Offset.apply(x, self.offset, self._places(x), self.input_quant.frac_now).to(y)

    def _places(self, x: Tensor) -> Tensor:
        """The place in the table of each code of the input."""
        place = torch.ldexp(x.detach(), self.input_quant.frac_now).round() - self._codes()[0]
        return place.long().clamp(0, (1 << self.input_quant.width) - 1)

    def _looked_up(self, x: Tensor) -> Tensor:
        """The values of ``f`` at codes of the input in float64, with the gradient of ``f``."""
        entries = self._entries().to(x.device)
        values = entries[self._places(x)]
        values = torch.where(x.isnan(), torch.nan, values)
        if torch.is_grad_enabled():
            smooth = self._learned(x.double())
            values = values + (smooth - smooth.detach())
        return values

    @torch.no_grad()
    def _entries(self) -> Tensor:
        """The entry of each code of the input, lowest first, in float64 on the CPU, not quantized yet."""
        self.require_narrow()
        entries = self._of(self._inputs())
        return entries if self.offset is None else entries + self.offset.double().cpu()

    def _inputs(self) -> Tensor:
        low, high = self._codes()
        codes = torch.arange(low, high + 1, dtype=torch.float64)
        return torch.ldexp(codes, -self.input_quant.frac_now.detach().cpu())

    def _codes(self) -> tuple[int, int]:
        return code_range(self.input_quant.width, self.input_quant.signed, Overflow.SAT)


def require_fixed(model: nn.Module) -> None:
    """Raise TrainError for a Table that gives ``f`` itself though it stands beside layers with formats."""
    tables = [module for module in model.modules() if isinstance(module, Table)]
    own = {id(quantizer) for table in tables for quantizer in (table.input_quant, table.output_quant)}
    if any(quantizer.calibrated and id(quantizer) not in own for quantizer in quantizers(model).values()):
        name_quantizers(model)
        for table in tables:
            if table.in_float:
                table.input_quant.require_calibrated()
                table.output_quant.require_calibrated()


class _Offset(torch.autograd.Function):
    """``y = offset[place]``; its gradient goes to the entries, and to x by the slope between an entry's neighbours."""

    @staticmethod
    def forward(ctx, x, offset, place, frac):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(offset, place, frac)
        return torch.where(x.isnan(), x, offset.to(x.dtype)[place])

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        offset, place, frac = ctx.saved_tensors
        above, below = (place + 1).clamp(max=len(offset) - 1), (place - 1).clamp(min=0)
        rise = (offset[above] - offset[below]).to(grad.dtype) / (above - below).clamp(min=1)
        to_offset = torch.zeros_like(offset).index_add_(0, place.reshape(-1), grad.reshape(-1).to(offset.dtype))
        return grad * torch.ldexp(rise, frac), to_offset, None, None
