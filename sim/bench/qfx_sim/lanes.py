"""Packs integer codes into words of several lanes and back, channel group by channel group."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.int64]


def word_of(codes: Sequence[int], width: int) -> int:
    """Return the word whose lane i, at bit i * width, holds ``codes[i]`` modulo 2**width."""
    mask = (1 << width) - 1
    word = 0
    for code in reversed(codes):
        word = word << width | (int(code) & mask)
    return word


def codes_of(word: int, width: int, lanes: int, signed: bool) -> list[int]:
    """Return the codes of the ``lanes`` lanes of ``word``, the lowest first."""
    mask, sign = (1 << width) - 1, (1 << (width - 1)) if signed else 0
    return [((word >> (i * width) & mask) ^ sign) - sign for i in range(lanes)]


@dataclass(frozen=True, slots=True)
class Lanes:
    """The layout of a stream: lane i of group g is channel ``g * lanes + i``; lanes beyond the channels are 0."""

    width: int  # bits a lane
    lanes: int  # lanes a word
    channels: int  # channels a pixel
    signed: bool = True

    @property
    def groups(self) -> int:
        """Return the words of a pixel."""
        return -(-self.channels // self.lanes)

    def words(self, codes: npt.ArrayLike) -> list[int]:
        """Return the words of ``codes`` (any shape whose last axis is the channels), pixels in C order."""
        pixels = np.asarray(codes, dtype=np.int64).reshape(-1, self.channels)
        padded = np.zeros((len(pixels), self.groups * self.lanes), dtype=np.int64)
        padded[:, : self.channels] = pixels
        return [word_of(group, self.width) for group in padded.reshape(-1, self.lanes).tolist()]

    def codes(self, words: Iterable[int]) -> Codes:
        """Return the codes of ``words`` (whole pixels), as an array (pixels, channels); padded lanes are dropped."""
        rows: list[Any] = [codes_of(word, self.width, self.lanes, self.signed) for word in words]
        return np.array(rows, dtype=np.int64).reshape(-1, self.groups * self.lanes)[:, : self.channels]
