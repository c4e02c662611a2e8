"""The constants of a kernel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Table:
    """Constants of a kernel, read as ``name(i)``: integer codes, or the digits of K-hot codes."""

    codes: np.ndarray  # int64, flat, in the order in which the kernel indexes them
    width: int  # bits of a code
    signed: bool
    digits: tuple[tuple[tuple[int, int], ...], ...] | None = None  # (sign, shift), as many for each code

    @property
    def element(self) -> str:
        """The C++ type of one entry in synthesis."""
        if self.digits is not None:
            return f"qfx::Digits<{len(self.digits[0])}>"
        return f"ap_{'' if self.signed else 'u'}int<{self.width}>"

    @property
    def native(self) -> str:
        """The C++ type of one entry in simulation, where a built-in type compiles and runs faster."""
        if self.digits is not None:
            return self.element
        size = next(bits for bits in (8, 16, 32, 64) if self.width <= bits - (not self.signed))
        return f"std::int{size}_t"

    def entries(self) -> list[str]:
        """Return the C++ initialisers, one for each entry."""
        if self.digits is None:
            return [str(int(code)) for code in self.codes]
        return [
            "{{"
            + ",".join(str(sign) for sign, _ in digits)
            + "},{"
            + ",".join(str(shift) for _, shift in digits)
            + "}}"
            for digits in self.digits
        ]
