"""What the report's template shows: rows and sentences, made from the records of the steps and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qfx.emit.report import plots

Record = Mapping[str, Any]
Records = Mapping[str, Record]

STEPS = ("train", "lower", "plan", "hls", "rtl", "sim", "synth")
_RESOURCES = (("lut", "LUT"), ("ff", "FF"), ("bram18", "BRAM18"), ("dsp", "DSP"))


def page(design: Mapping[str, Any], records: Records) -> dict[str, Any]:
    """Return everything that the template names."""
    return {
        "design": design,
        "verdict": verdict(records),
        "tiles": tiles(design, records),
        "steps": [step_row(name, records.get(name)) for name in STEPS],
        "warnings": [{"step": name, "text": text} for name in STEPS for text in _of(records, name, "warnings", ())],
        "accuracy": accuracy(design, records),
        "front": front(records),
        "exactness": exactness(records),
        "rate": rate(design, records),
        "formats": formats(records),
        "moves": moves(records),
        "resources": resources(records),
        "tools": [tool(name, design["versions"].get(name), at) for name, at in design["tested"].items()],
        "others": sorted((name, at) for name, at in design["versions"].items() if name not in design["tested"]),
    }


def _of(records: Records, step: str, key: str, default: Any = None) -> Any:
    return records[step].get(key, default) if step in records else default


def _figures(records: Records, step: str) -> Mapping[str, Any] | None:
    """The figures of a step that ended well."""
    record = records.get(step)
    return record["figures"] if record and not record["failure"] else None


def verdict(records: Records) -> dict[str, str]:
    """The one sentence at the top of the page."""
    failed = [name for name in STEPS if _of(records, name, "failure")]
    missing = [name for name in STEPS if name not in records]
    stale = [name for name in STEPS if _of(records, name, "stale")]
    if failed:
        return {"kind": "bad", "text": "Unequal integers", "more": records[failed[0]]["failure"]}
    if missing:
        return {"kind": "open", "text": "Not finished", "more": f"not run: {', '.join(missing)}"}
    if stale:
        return {"kind": "open", "text": "Out of date", "more": f"made from an earlier state: {', '.join(stale)}"}
    return {"kind": "good", "text": "All engines compute the same integers", "more": ""}


def step_row(name: str, record: Record | None) -> dict[str, Any]:
    """One line of the list of steps."""
    if record is None:
        return {"name": name, "kind": "open", "state": "not run", "seconds": "", "finished": ""}
    state = "unequal integers" if record["failure"] else "out of date" if record.get("stale") else "done"
    kind = "bad" if record["failure"] else "open" if record.get("stale") else "good"
    finished = record["finished"].replace("T", " ")[:19]
    return {"name": name, "kind": kind, "state": state, "seconds": f"{record['seconds']:.1f} s", "finished": finished}


def tiles(design: Mapping[str, Any], records: Records) -> list[dict[str, str]]:
    """The handful of numbers that people look for first."""
    found = []
    train, plan, synth = (_figures(records, name) for name in ("train", "plan", "synth"))
    if train:
        best = train["widths"][str(train["lowered"])]
        more = f"{train['lowered']} bits; float {train['float']['accuracy']:.2f} %"
        found.append({"value": f"{best['accuracy']:.2f} %", "name": "test accuracy", "more": more})
    if plan:
        rate_now = f"{plan['frames_per_second']:,.0f}"
        found.append({"value": rate_now, "name": "frames a second", "more": f"at {plan['clock_mhz']:g} MHz"})
        more = f"latency {plan['latency']:,} cycles"
        found.append({"value": f"{plan['interval']:,}", "name": "cycles a frame", "more": more})
    if synth:
        for key, name in (("lut", "LUT"), ("dsp", "DSP")):
            limit = synth["budget"][key]
            more = f"{100 * synth['total'][key] / limit:.1f} % of {limit:,}" if limit else "none on the board"
            found.append({"value": f"{synth['total'][key]:,}", "name": name, "more": more})
    return found


def tool(name: str, here: str | None, tested: str) -> dict[str, str]:
    """One line of the list of tools; a version may have a build behind it, such as +cpu, and ``tested`` be unknown."""
    kind = "good" if here and here.partition("+")[0] == (tested or here) else "open"
    return {"name": name, "here": here or "missing", "tested": tested, "kind": kind}


def accuracy(design: Mapping[str, Any], records: Records) -> dict[str, Any] | None:
    """The stages of training with what each reached on the test set."""
    train = _figures(records, "train")
    if not train:
        return None
    full = train["float"]["accuracy"]
    rows = [{"stage": "float", "value": full, "lowered": False}]
    for width, run in train["widths"].items():
        lowered = width == str(train["lowered"])
        rows.append({"stage": f"{width} bits, quantized after training", "value": run["quantized"], "lowered": False})
        rows.append({"stage": f"{width} bits, trained in fixed point", "value": run["accuracy"], "lowered": lowered})
    for row in rows:
        row["lost"] = full - row["value"]
    minimum = (design.get("accuracy") or {}).get("minimum")
    facts = {"images": train["images"], "device": train.get("device", "cpu")}  # there was no other
    return {"rows": rows, "minimum": minimum, **facts, "plot": plots.accuracy(rows, minimum)}


def front(records: Records) -> dict[str, Any] | None:
    """The networks of a front: what each may take and takes of the resources that it is about, and what it reaches."""
    found = (_figures(records, "train") or {}).get("front")
    if not found:
        return None
    resources = [{"key": key, "name": name} for key, name in _RESOURCES if key in found["resources"]]
    rows = []
    for network in found["networks"]:
        asked, reached = network["budget"]["asked"], network["budget"]["reached"]
        counts = [{"asked": asked[each["key"]], "takes": reached[each["key"]]} for each in resources]
        cells = {key: network[key] for key in ("name", "quantized", "accuracy", "dominated")}
        rows.append({**cells, "counts": counts, "cycles": reached["cycles"], "fits": network["budget"]["fits"]})
    return {"resources": resources, "rows": rows, "plot": plots.front(rows, [each["name"] for each in resources])}


def exactness(records: Records) -> dict[str, Any]:
    """Who was compared with whom, on how much, and what came out."""
    rows = []
    lower = records.get("lower")
    rows.append(_compared("interpreter", "torch, exact", lower, (lower or {}).get("figures", {}).get("exact")))
    hls = records.get("hls")
    rows.append(_compared("HLS csim", "interpreter", hls, (hls or {}).get("figures")))
    sim = records.get("sim")
    runs = (sim or {}).get("figures", {}).get("runs")
    if not sim or not runs:
        rows.append(_compared("RTL, Verilator", "interpreter", sim, (sim or {}).get("figures")))
    for run in runs or ():
        rows.append(_compared("RTL, Verilator", "interpreter", sim, run))
    mismatch = next((m for m in (_mismatch(records.get(name)) for name in ("lower", "hls", "sim")) if m), None)
    return {"rows": rows, "mismatch": mismatch}


def _mismatch(record: Record | None) -> Mapping[str, Any] | None:
    return record["figures"].get("mismatch") if record and record["failure"] else None


def _compared(engine: str, against: str, record: Record | None, figures: Mapping[str, Any] | None) -> dict[str, Any]:
    row: dict[str, Any] = {"engine": engine, "against": against, "frames": "", "nodes": "", "codes": "", "stalls": ""}
    if record is None:
        return {**row, "kind": "open", "state": "not run"}
    if figures:
        row |= {key: f"{figures[key]:,}" for key in ("frames", "nodes", "codes") if key in figures}
        row["stalls"] = figures.get("stalls", "")
    equal = not record["failure"] if figures is None or "equal" not in figures else figures["equal"]
    return {**row, "kind": "good" if equal else "bad", "state": "equal" if equal else "unequal"}


def rate(design: Mapping[str, Any], records: Records) -> dict[str, Any] | None:
    """Cycles, frames and the clock at which the design just makes its target."""
    plan = _figures(records, "plan")
    if not plan:
        return None
    asked = (design.get("target") or {}).get("cycles")
    wanted = plan["clock_mhz"] * 1e6 / asked if asked else 1000.0
    simulated = (_figures(records, "sim") or {}).get("interval")
    return {
        "interval": plan["interval"],
        "simulated": simulated,
        "latency": plan["latency"],
        "clock": plan["clock_mhz"],
        "frames": plan["frames_per_second"],
        "target": asked,
        "wanted": wanted,
        "break_even": plan["interval"] * wanted / 1e6,
        "bottleneck": plan["bottleneck"],
        "plot": plots.cycles({name: node["cycles"] for name, node in plan["nodes"].items() if node["cycles"]}),
    }


def formats(records: Records) -> dict[str, Any] | None:
    """Every tensor and constant of the graph with its format."""
    lower = _figures(records, "lower")
    if not lower:
        return None
    rows = [
        {**node, "size": "x".join(map(str, node["shape"])), "constants": [_constant(c) for c in node["constants"]]}
        for node in lower["nodes"]
    ]
    kib = lower["weight_bits"] / 8192
    return {
        "rows": rows,
        "macs": lower["macs"],
        "parameters": lower["parameters"],
        "kib": f"{kib:,.1f}" if kib >= 1 else f"{kib:.3f}",
        "plot": plots.formats(lower["nodes"]),
    }


def _constant(constant: Mapping[str, Any]) -> str:
    digits = f", {constant['digits']}-hot" if constant["digits"] else ""
    return f"{constant['format']} ({'x'.join(map(str, constant['shape']))}{digits})"


def moves(records: Records) -> dict[str, Any] | None:
    """Where each quantizer's binary points started and where training left them."""
    train = _figures(records, "train")
    if not train:
        return None
    found = train["widths"][str(train["lowered"])]["moves"]
    rows = []
    for name, move in found.items():
        moved = sum(a != b for a, b in zip(move["before"], move["now"], strict=True))
        row = {"name": name, "points": len(move["now"]), "moved": moved}
        rows.append({**row, "before": _points(move["before"]), "now": _points(move["now"])})
    points, moved = sum(row["points"] for row in rows), sum(row["moved"] for row in rows)
    return {"rows": rows, "points": points, "moved": moved, "plot": plots.moves(found), "width": train["lowered"]}


def _points(values: list[int]) -> str:
    return str(values[0]) if len(set(values)) == 1 else f"{min(values)} to {max(values)}"


def resources(records: Records) -> dict[str, Any] | None:
    """What the design takes of the board, counted and estimated."""
    plan, synth = _figures(records, "plan"), _figures(records, "synth")
    if not plan:
        return None
    budget = plan["board"]["budget"]
    rows = []
    for key, name in _RESOURCES:
        counted = synth["total"][key] if synth else None
        estimate = plan["resources"][key]
        rows.append(
            {
                "name": name,
                "counted": counted,
                "estimate": estimate,
                "budget": budget[key],
                "share": 100 * (estimate if counted is None else counted) / budget[key] if budget[key] else None,
            }
        )
    parts = sorted(synth["parts"], key=lambda part: -part["lut"]) if synth else []
    return {
        "rows": rows,
        "board": plan["board"],
        "tool": synth["tool"] if synth else None,
        "depth": synth["depth"] if synth else None,
        "parts": parts,
        "plot": plots.resources(rows),
    }
