"""The quantizer: one format with a learnable binary point, and the statistics that initialise it."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from qfx.errors import TrainError
from qfx.fixed import FRAC_RANGE, WIDEST, Fixed, Overflow, Rounding
from qfx.fixed.khot import magnitudes
from qfx.nn.channel_digits import WIDEST_CHANNEL_DIGITS, Words, cast_channel_digits, round_k, words
from qfx.nn.functional import WIDEST_IN_FLOAT32, cast, code_range, round_frac
from qfx.nn.learned_width import WIDEST_LEARNED, cast_learned_width, round_width, width_in_use
from qfx.nn.observe import Observer


@dataclass(frozen=True, slots=True)
class Digits:
    """At most ``k`` non-zero digits in a constant's word: digits {0,1}, or {-1,0,1} if signed."""

    k: int | tuple[int, ...]  # one for all channels, or one for each
    signed: bool = False
    zero: bool = True  # whether a word may be 0; binary weights are never
    learn: bool = False  # for each channel, from ``k`` on

    @property
    def of_channels(self) -> bool:
        """Whether channels differ in K, or may come to."""
        return self.learn or not isinstance(self.k, int)

    @property
    def most(self) -> int:
        """The largest K, where training has not changed it."""
        return self.k if isinstance(self.k, int) else max(self.k)

    def each(self, channels: int) -> tuple[int, ...]:
        """Return the K of each channel, or refuse a list of another length."""
        if isinstance(self.k, int):
            return (self.k,) * channels
        if len(self.k) != channels:
            raise ChannelError(
                f"its digits must have one k, or a list of one for each of its {channels} channels, "
                f"not of {len(self.k)}"
            )
        return self.k


class ChannelError(TrainError):
    """What a recipe says of each channel is said of another number of channels than there are."""


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
        if self.digits and self.digits.most > max(self.width - 1, 1):
            raise TrainError(
                f"the k of a K-hot word must be at most {max(self.width - 1, 1)}, the digits that {self.width} bits "
                f"have beside the sign, not {self.digits.most}"
            )
        if self.digits and self.digits.of_channels and not 2 <= self.width <= WIDEST_CHANNEL_DIGITS:
            raise TrainError(
                f"a word with a K for each channel must have a width in 2..{WIDEST_CHANNEL_DIGITS}, not {self.width}"
            )


WEIGHT = Spec(signed=True, overflow=Overflow.SAT_SYM, per_channel=True)
CONSTANT = Spec(signed=True, overflow=Overflow.SAT_SYM, per_channel=True)
ACTIVATION = Spec()
ELEMENTWISE = Spec()


_NEARLY_ALL, _MANY = 0.99, 0.4  # of the values that are not zero: refused; warned of (a half, of few weights)
_FATES = {  # of values that a stated format does not hold: what is said of them, and the remedy
    "negative": (
        "of them are negative and saturate at 0: {format} has no sign",
        "make it signed in the recipe, or leave frac out",
    ),
    "wide": (
        "of them saturate: {format} ends at {top:g}, and they lie in {low:g}..{high:g}",
        "give it a lower frac or a larger width in the recipe, or leave frac out",
    ),
    "lost": (
        "of them become 0: {format} has steps of {step:g}, and they lie in {low:g}..{high:g}",
        "give it a higher frac in the recipe, or leave frac out",
    ),
}


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
        self.k = _channel_k(spec.digits, channels)
        self.signed = spec.signed is not False
        self.calibrated = spec.frac is not None and spec.signed is not None
        self.observer: Observer | None = None
        self.rectifies = False
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

    def rectify(self) -> None:
        """Be unsigned, unless the recipe states a sign: to be called where only ReLUs read the values.

        Saturation at 0 is that ReLU; of a signed format it would leave half of the codes.
        """
        spec = self.spec
        if spec.signed is None and spec.digits is None and spec.overflow in (Overflow.SAT, Overflow.SAT_SYM):
            self.spec = replace(spec, signed=False)
            self.signed, self.rectifies, self.calibrated = False, True, spec.frac is not None

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

    @property
    def learns_digits(self) -> bool:
        """Whether the recipe leaves the K of each channel to training."""
        return self.spec.digits is not None and self.spec.digits.learn

    @property
    def words(self) -> Words:
        """The K-hot words for every K, where channels differ in it."""
        return Words(self.edges, self.levels)

    @property
    def k_now(self) -> Tensor:
        """The integer K in use, of all channels or of each, as a detached float tensor."""
        if self.k is not None:
            return round_k(self.k, self.words.most)
        return torch.tensor(float(self.spec.digits.most if self.spec.digits else 0))

    @property
    def max_digits(self) -> int | None:
        """The largest K in use, at least 1, or None where words may have any digits."""
        return max(int(self.k_now.max()), 1) if self.spec.digits else None

    def forward(self, x: Tensor) -> Tensor:
        if self.observer is not None:
            self.observer.add(x.detach().clamp_min(0.0) if self.rectifies else x.detach())
            return x
        self.require_calibrated()
        if self.spec.width == 0 and self.bits is None:
            return x * 0.0
        spec, mode = self.spec, self.spec.overflow
        if self.k is not None:
            return cast_channel_digits(x, self.frac, self.k, self.words, self._largest, self.axis)
        if self.bits is not None:
            return cast_learned_width(x, self.frac, self.bits, self.signed, spec.rounding, mode, self.axis)
        return cast(
            x, self.frac, spec.width, self.signed, spec.rounding, mode, axis=self.axis, khot=self._khot, gain=None
        )

    @property
    def _khot(self) -> tuple[Tensor, Tensor] | None:
        """Edges and levels of the words of one K: that of all channels, or the largest of them."""
        if self.k is None:
            return None if self.levels is None else (self.edges, self.levels)
        levels = self.levels[self.max_digits or 1].unique()
        return (levels[1:] + levels[:-1]) / 2, levels

    @property
    def _largest(self) -> int:
        return code_range(self.width, self.signed, self.spec.overflow)[1]

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

    def watch(self) -> None:
        """Look on from now on, as calibration does, instead of quantizing."""
        axis = self.axis if self.spec.per_channel else None
        self.observer = Observer(axis, self.constant, self.path, weights=self.axis == 0)

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
        signed = self.spec.signed if self.spec.signed is not None else observer.low < 0 or observer.peak == 0
        self.signed = signed
        khot = self._khot
        largest = khot[1][-1].item() if khot else code_range(self.width, signed, Overflow.SAT)[1]
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
        """Refuse a stated format that holds next to none of the values: they saturate, or are lost to zero.

        Warn where those are many of a layer's weights or constants.
        """
        counted = samples.abs() >= 2.0 ** -(FRAC_RANGE[1] + 1)  # the others are 0 in any format
        if self.learned or self.width == 0 or not counted.any():
            return
        high, seen = code_range(self.width, self.signed, self.spec.overflow)[1], samples[counted].abs()
        codes = torch.ldexp(samples, self.frac_now[:, None] if self.spec.per_channel else self.frac_now)[counted]
        negative, wide, lost = (codes < 0) & (not self.signed), codes.abs() > high + 0.5, codes.abs() < 0.5
        lost &= self.spec.digits is None or self.spec.digits.zero
        share = {name: each.double().mean().item() for name, each in zip(_FATES, (negative, wide, lost), strict=True)}
        fate = max(share, key=lambda name: share[name])
        form, (reason, remedy) = Fixed(self.width, int(self.frac_now.min()), self.signed), _FATES[fate]
        step = 2.0**-form.scalar_frac
        said = reason.format(format=form, top=high * step, step=step, low=seen.min(), high=seen.max())
        said = f"hold the values that reach it, but {100 * share[fate]:.3g} % {said}; {remedy}"
        if share[fate] >= _NEARLY_ALL:
            raise TrainError(f"quantizer '{self.path}' must {said}")
        ternary = fate == "lost" and self.width <= 2  # which is meant to have zeros
        if share[fate] >= _MANY and self.axis == 0 and not ternary:
            warnings.warn(f"quantizer '{self.path}' should {said}", stacklevel=4)  # where calibrate is called

    def _least_error(self, samples: Tensor, widest: Tensor) -> Tensor:
        """The frac, from the one that clips nothing to 4 bits finer, with the least squared error; ties: the widest."""
        errors, khot = [], self._khot
        for finer in range(5):
            frac = (widest + finer).clamp(*FRAC_RANGE)
            if self.k is not None and self.spec.per_channel:
                y = cast_channel_digits(samples, frac, self.k, self.words, self._largest)
            else:
                y = cast(samples, frac, self.width, self.signed, self.spec.rounding, Overflow.SAT, khot=khot)
            errors.append(((y - samples) ** 2).mean(-1))
        return widest + torch.stack(errors).argmin(0)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move with the model; formats stay in float32, whatever the model's weights are cast to."""

        def moved(given: Tensor) -> Tensor:
            found = fn(given)
            return found if found.dtype == given.dtype else given.to(found.device)

        return super()._apply(moved, recurse)

    def get_extra_state(self) -> Tensor:
        return torch.tensor([self.spec.width, self.signed, self.calibrated], dtype=torch.int64)

    def set_extra_state(self, state: Tensor) -> None:
        width, signed, calibrated = (int(value) for value in state)
        self.require_width(width)
        self.signed, self.calibrated = bool(signed), bool(calibrated)

    def require_calibrated(self) -> None:
        """Refuse to run without a format."""
        if not self.calibrated:
            raise TrainError(
                f"quantizer '{self.path or type(self).__name__}' must be calibrated before it runs: "
                "call qfx.calibrate(model, batches) once after qfx.convert"
            )

    def require_width(self, width: int) -> None:
        """Refuse the state of a quantizer of another width."""
        if width != self.spec.width:
            raise TrainError(
                f"quantizer '{self.path}' must have the checkpoint's width {width}, not {self.spec.width}: "
                "convert with the recipe that the checkpoint was trained with"
            )

    def extra_repr(self) -> str:
        spec = self.spec
        digits = f", {self._k_text}-hot{' signed' if spec.digits.signed else ''}" if spec.digits else ""
        digits += ", learned K" if self.learns_digits else ""
        digits += "" if not spec.digits or spec.digits.zero else ", never 0"
        name = str(self.format()) if self.calibrated else f"{spec.width} bits, not calibrated"
        digits += ", learned width" if spec.learn_width else ""
        return f"{name}, {spec.rounding}, {spec.overflow}{digits}"

    @property
    def _k_text(self) -> str:
        low, high = int(self.k_now.min()), int(self.k_now.max())
        return str(high) if low == high else f"{low}..{high}"


def _channel_k(digits: Digits | None, channels: int) -> nn.Parameter | None:
    """The K of each channel, where they may differ."""
    if digits is None or not digits.of_channels:
        return None
    return nn.Parameter(torch.tensor(digits.each(channels), dtype=torch.float32), requires_grad=digits.learn)


def _khot_tables(spec: Spec) -> tuple[Tensor | None, Tensor | None]:
    if spec.digits is None:
        return None, None
    if spec.digits.of_channels:
        table = words(spec.width, spec.digits.signed)
        return table.edges, table.levels
    levels = torch.tensor(magnitudes(spec.width, spec.digits.most, spec.digits.signed), dtype=torch.float32)
    levels = levels if spec.digits.zero else levels[levels > 0]
    return (levels[1:] + levels[:-1]) / 2, levels
