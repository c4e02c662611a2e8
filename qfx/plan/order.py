"""Parameter Order of qfx_select: which lane of which word of a pixel goes where."""

from collections.abc import Sequence


class Literal(str):
    """A parameter's value as SystemVerilog writes it, no string."""


def select_order(channels: Sequence[int], in_lanes: int, in_words: int, out_lanes: int) -> Literal:
    """Parameter Order of qfx_select: for each lane of each word of a result pixel {taken, lane, word}."""
    lane_bits, word_bits = max((in_lanes - 1).bit_length(), 1), max((in_words - 1).bit_length(), 1)
    bits, order = 1 + lane_bits + word_bits, 0
    for place, channel in enumerate(channels):
        if channel >= 0:
            word, lane = divmod(channel, in_lanes)
            order |= (1 << (bits - 1) | lane << word_bits | word) << (place * bits)
    return Literal(f"{-(-len(channels) // out_lanes) * out_lanes * bits}'h{order:x}")


def joined_lanes(order: str, in_words: int, out_lanes: int, in_lanes: int) -> int:
    """The pairs of a lane in and a lane out that an Order joins: the memories of qfx_select."""
    size, _, digits = order.partition("'h")
    word_bits, lane_bits = max((in_words - 1).bit_length(), 1), max((in_lanes - 1).bit_length(), 1)
    bits, entries = 1 + lane_bits + word_bits, int(digits, 16)
    places = range(int(size) // bits)
    heads = [entries >> (place * bits + word_bits) & ((2 << lane_bits) - 1) for place in places]
    return len({(place % out_lanes, head) for place, head in enumerate(heads) if head >> lane_bits})
