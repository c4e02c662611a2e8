"""The quantizer: one format with a learnable binary point, and the statistics that initialise it."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from qfx.errors import TrainError
from qfx.fixed import FRAC_RANGE, WIDEST, Fixed, Overflow, Rounding
from qfx.fixed.khot import magnitudes
from qfx.nn.functional import WIDEST_IN_FLOAT32, cast, code_range, round_frac
from qfx.nn.learned_width import WIDEST_LEARNED, cast_learned_width, round_width, width_in_use
from qfx.nn.observe import Observer


@dataclass(frozen=True, slots=True)
class Digits:
    """At most ``k`` non-zero digits in a constant's word: digits {0,1}, or {-1,0,1} if signed."""

    k: int
    signed: bool = False
    zero: bool = True  # whether a word may be 0; binary weights are never


@dataclass(frozen=True, slots=True)
class Spec:
    """What a recipe says of one quantization point."""

    width: int = 8
    frac: int | None = None  # None: learned
    signed: bool | None = None  # None: decided by calibration, unsigned if nothing negative was seen
    rounding: Rounding = Rounding.RND
    overflow: Overflow = Overflow.SAT
    per_channel: bool = False
    digits: Digits | None = None
    learn_width: bool = False  # from ``width``, within 0..WIDEST_LEARNED

    def __post_init__(self) -> None:
        if not 0 <= self.width <= WIDEST:
            raise TrainError(f"the width of a quantizer must lie in 0..{WIDEST}, not {self.width}")
        if self.frac is not None and not FRAC_RANGE[0] <= self.frac <= FRAC_RANGE[1]:
            raise TrainError(f"the frac of a quantizer must lie in {FRAC_RANGE[0]}..{FRAC_RANGE[1]}, not {self.frac}")
        if self.learn_width and (self.digits or self.overflow not in (Overflow.SAT, Overflow.SAT_SYM)):
            raise TrainError("a learned width must have overflow SAT or SAT_SYM and no digits: its bound must move")
        if self.learn_width and self.width > WIDEST_LEARNED:
            raise TrainError(f"a learned width must start at {WIDEST_LEARNED} bits or less, not {self.width}")
        if self.digits and self.signed is False:
            raise TrainError("a K-hot word must be signed: its digits are those of a sign-magnitude number")


WEIGHT = Spec(signed=True, overflow=Overflow.SAT_SYM, per_channel=True)
CONSTANT = Spec(signed=True, overflow=Overflow.SAT_SYM, per_channel=True)
ACTIVATION = Spec()
ELEMENTWISE = Spec()


class Quantizer(nn.Module):
    """``y = overflow(round(x * 2**frac)) * 2**-frac`` with a learned ``frac``.

    ``frac`` is a real parameter that is rounded in use; its gradient is DESIGN.md 3's, times LSQ's
    ``1 / sqrt(values per frac * largest code)``. In use it is held within -21..21. The width, the sign and whether it
    was calibrated are kept in the state_dict; a quantizer that has no binary point yet refuses to run.

    Args:
        spec: width, modes, and what is fixed beforehand.
        channels: number of channels along ``axis`` if the spec is per channel.
        axis: the channel axis of the tensors it meets: 0 for weights and constants, 1 for activations.
        constant: it holds a layer's constants, which training moves: calibration leaves them room.
    """

    def __init__(self, spec: Spec, channels: int = 1, axis: int = 0, constant: bool = False) -> None:
        super().__init__()
        self.spec, self.axis, self.constant = spec, axis, constant
        shape = (channels,) if spec.per_channel else ()
        start = torch.full(shape, float(spec.frac or 0))
        self.frac = nn.Parameter(start.clone(), requires_grad=spec.frac is None)
        self.register_buffer("initial", start)  # frac as calibrated, for the log of moves
        self.bits = nn.Parameter(torch.full(shape, float(spec.width))) if spec.learn_width else None
        self.signed = spec.signed is not False
        self.calibrated = spec.frac is not None and spec.signed is not None
        self.observer: Observer | None = None
        self.path = ""
        edges, levels = _khot_tables(spec)
        self.register_buffer("edges", edges, persistent=False)
        self.register_buffer("levels", levels, persistent=False)

    @property
    def owner(self) -> str:
        """The path of the layer that this quantizer belongs to, as far as it is known."""
        return self.path.rpartition(".")[0] or self.path or type(self).__name__

    @property
    def learned(self) -> bool:
        """Whether the recipe leaves the binary point to training."""
        return self.spec.frac is None

    @property
    def plain(self) -> bool:
        """Whether it is a cast with one binary point, rounding RND, that saturates: what kernels compute."""
        spec, ready = self.spec, self.calibrated and self.observer is None
        form = spec.rounding is Rounding.RND and spec.overflow in (Overflow.SAT, Overflow.SAT_SYM)
        narrow = 0 < spec.width <= WIDEST_IN_FLOAT32 and self.bits is None and self.levels is None
        return ready and form and narrow and not spec.per_channel

    @property
    def width(self) -> int:
        """Bits of a code, sign included; of the widest channel where widths are learned per channel."""
        return self.spec.width if self.bits is None else int(round_width(self.bits).max())

    @property
    def bits_in_use(self) -> Tensor:
        """The width or widths as a float tensor, differentiable where they are learned."""
        return torch.tensor(float(self.spec.width)) if self.bits is None else width_in_use(self.bits)

    @property
    def frac_now(self) -> Tensor:
        """The integer binary points in use, as a detached float tensor."""
        return round_frac(self.frac)

    def forward(self, x: Tensor) -> Tensor:
        if self.observer is not None:
            self.observer.add(x.detach())
            return x
        if not self.calibrated:
            raise TrainError(
                f"quantizer '{self.path or type(self).__name__}' must be calibrated before it runs: "
                "call qfx.calibrate(model, batches) once after qfx.convert"
            )
        if self.spec.width == 0 and self.bits is None:
            return x * 0.0
        spec, mode = self.spec, self.spec.overflow
        if self.bits is not None:
            return cast_learned_width(x, self.frac, self.bits, self.signed, spec.rounding, mode, self.axis)
        return cast(
            x, self.frac, spec.width, self.signed, spec.rounding, mode, axis=self.axis, khot=self._khot, gain=None
        )

    @property
    def _khot(self) -> tuple[Tensor, Tensor] | None:
        return None if self.levels is None else (self.edges, self.levels)

    def format(self) -> Fixed:
        """Return the format in use; its channels, if any, are those of ``axis``."""
        fracs = [int(frac) for frac in self.frac_now.reshape(-1).tolist()]
        return Fixed(self.width, tuple(fracs) if self.spec.per_channel else fracs[0], self.signed)

    def codes(self, values: Tensor) -> np.ndarray:
        """Return the int64 codes of ``values``, computed in float64, axes as given."""
        with torch.no_grad():
            values = self(values.detach().to(torch.float64)).cpu()
        shape = [1] * values.dim()
        if self.spec.per_channel:
            shape[self.axis] = -1
        return np.ldexp(values.numpy(), self.frac_now.cpu().int().reshape(shape).numpy()).astype(np.int64)

    @torch.no_grad()
    def start_at(self, frac: Tensor, signed: bool) -> None:
        """Take an initial format, as far as the spec leaves it open, and count as calibrated."""
        if self.spec.signed is None:
            self.signed = signed
        if self.learned:
            self.frac.copy_(frac.clamp(*FRAC_RANGE).to(self.frac))
        self.initial.copy_(self.frac)
        self.calibrated = True

    @torch.no_grad()
    def initialise(self, least_error: bool = True, part: float = 1.0) -> None:
        """Choose what the spec leaves open of the format from what the observer has seen, and check that it holds it.

        Args:
            least_error: the binary point of the least squared error, instead of the finest that clips nothing.
            part: of the values, that are not to be clipped, where ``least_error`` is False.
        """
        observer, self.observer = self.observer, None
        if observer is None or observer.empty:
            if not self.learned and self.spec.signed is not None:
                return
            raise TrainError(f"quantizer '{self.path}' must see data in calibration, but no batch reached it")
        signed = self.spec.signed if self.spec.signed is not None else observer.low < 0
        self.signed = signed
        largest = self.levels[-1].item() if self.levels is not None else code_range(self.width, signed, Overflow.SAT)[1]
        samples = observer.samples().to(self.frac.device)
        best = observer.frac_for(largest or 1, part).to(self.frac.device)
        self._require_reach(best, observer.peak)
        if self.learned and not self.constant and least_error:
            best = self._least_error(samples, best)
        self.start_at(best, signed)
        self._require_room(samples)

    def _require_reach(self, frac: Tensor, peak: float) -> None:
        """Refuse values of which a frac within FRAC_RANGE clips the largest, or makes all of an activation zero."""
        if not self.learned or self.width == 0:
            return
        low, high = FRAC_RANGE
        lost = self.axis == 1 and frac.max() > high and 0 < peak < 2.0 ** -(high + 1)
        if frac.min() < low or lost:
            raise TrainError(
                f"quantizer '{self.path}' must see values that a frac in {low}..{high} reaches, not values of up to "
                f"{peak:.3g} in size: scale the data, or the weights of the layers before it"
            )

    def _require_room(self, samples: Tensor) -> None:
        """Refuse a format that clips every value that is not zero."""
        if self.learned or self.width == 0 or not samples.any():
            return
        low, high = code_range(self.width, self.signed, self.spec.overflow)
        codes = torch.ldexp(samples, self.frac_now[:, None] if self.spec.per_channel else self.frac_now)
        if ((codes > high + 0.5) | (codes < low - 0.5) | (samples == 0)).all():
            top, least = high * 2.0 ** -self.frac_now.min().item(), samples[samples != 0].abs().min().item()
            raise TrainError(
                f"quantizer '{self.path}' must hold the values that reach it, but all of them saturate: "
                f"{self.format()} ends at {top:g}, and the smallest of them is {least:g}; give it a lower frac or a "
                "larger width in the recipe, or leave frac out"
            )

    def _least_error(self, samples: Tensor, widest: Tensor) -> Tensor:
        """The frac, from the one that clips nothing to 4 bits finer, with the least squared error; ties: the widest."""
        errors = []
        for finer in range(5):
            frac = (widest + finer).clamp(*FRAC_RANGE)
            y = cast(samples, frac, self.width, self.signed, self.spec.rounding, Overflow.SAT, khot=self._khot)
            errors.append(((y - samples) ** 2).mean(-1))
        return widest + torch.stack(errors).argmin(0)

    def get_extra_state(self) -> Tensor:
        return torch.tensor([self.spec.width, self.signed, self.calibrated], dtype=torch.int64)

    def set_extra_state(self, state: Tensor) -> None:
        width, signed, calibrated = (int(value) for value in state)
        self.require_width(width)
        self.signed, self.calibrated = bool(signed), bool(calibrated)

    def require_width(self, width: int) -> None:
        """Refuse the state of a quantizer of another width."""
        if width != self.spec.width:
            raise TrainError(
                f"quantizer '{self.path}' must have the checkpoint's width {width}, not {self.spec.width}: "
                "convert with the recipe that the checkpoint was trained with"
            )

    def extra_repr(self) -> str:
        spec = self.spec
        digits = f", {spec.digits.k}-hot{' signed' if spec.digits.signed else ''}" if spec.digits else ""
        digits += "" if not spec.digits or spec.digits.zero else ", never 0"
        name = str(self.format()) if self.calibrated else f"{spec.width} bits, not calibrated"
        digits += ", learned width" if spec.learn_width else ""
        return f"{name}, {spec.rounding}, {spec.overflow}{digits}"


def _khot_tables(spec: Spec) -> tuple[Tensor | None, Tensor | None]:
    if spec.digits is None:
        return None, None
    levels = torch.tensor(magnitudes(spec.width, spec.digits.k, spec.digits.signed), dtype=torch.float32)
    levels = levels if spec.digits.zero else levels[levels > 0]
    return (levels[1:] + levels[:-1]) / 2, levels
