"""One training step of ResNet-20, batch 128: fixed point against float, both eager and compiled.

Everything is measured in one run, the variants in turn, so that a busy machine slows all of them alike. The recipe is
that of designs/resnet20, and every binary point learns. Compiled must take at most 1.25 times the fastest float
variant, eager at most 2.0 times. Beside it stand the fixed-point quantizers of Brevitas, HGQ2 (Keras 3 on torch) and
PQuantML, each where it is installed (``pip install brevitas HGQ2 pquant-ml``); the loss of the last two has the cost
of their widths, as in their own training. Freed memory stays with the process, as in `qfx.train.fit`, for all of them.
CPU time is that of the process, over all its threads. On a GPU there are compiled variants that are replayed as CUDA
graphs too, and results go to train_step_gpu.json.

    python bench/bench_train_step.py [--rounds 15] [--threads N] [--device cuda] [--variants NAME ...]
"""

import argparse
import importlib.util
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version

import torch
import torch.nn.functional as F
from harness import publish
from torch import nn

import qfx
from qfx.design import Design
from qfx.train import runs
from qfx.train.compiled import compiled
from qfx.train.memory import keep_freed_memory

BATCH = 128
PEERS = {"brevitas": "brevitas", "hgq": "HGQ2", "pquant": "pquant-ml"}  # package of PyPI by module
RUNS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "eager": lambda model: model,
    "compiled": compiled,
    "graphs": lambda model: torch.compile(model, mode="reduce-overhead"),  # CUDA graphs
}
Step = Callable[[], None]


def networks() -> dict[str, Callable[[torch.Tensor], nn.Module]]:
    """Return what makes each network, from a batch of images."""
    design = Design.load("resnet20")

    def fixed(images: torch.Tensor) -> nn.Module:
        model = runs.fixed_model(design, runs.float_model(design), design.content.training.widths[0])
        return qfx.calibrate(model, [images])

    def peer(images: torch.Tensor, file: str, name: str) -> nn.Module:
        kind = getattr(importlib.import_module(file), name)
        return kind(images) if name == "PquantResNet" else kind()

    peers = {
        "brevitas": ("brevitas", "brevitas_resnet", "BrevitasResNet"),
        "hgq2": ("hgq", "hgq2_resnet", "Hgq2ResNet"),
        "pquant": ("pquant", "pquant_resnet", "PquantResNet"),
    }
    there = {name: rest for name, (module, *rest) in peers.items() if importlib.util.find_spec(module)}
    return {
        "float": lambda images: runs.float_model(design),
        "qfx": fixed,
        **{name: partial(peer, file=file, name=kind) for name, (file, kind) in there.items()},
    }


def variants(device: torch.device) -> dict[str, tuple[str, str, bool]]:
    """Return network, how it runs (a key of RUNS), whether channels last, by the name of the row."""
    ours = ("eager", "compiled", "graphs") if device.type == "cuda" else ("eager", "compiled")
    rows = {}
    for network in networks():
        for run in ours if network in ("float", "qfx") else ("eager",):
            for last in (False, True):
                rows[f"{network}, {run}, {'NHWC' if last else 'NCHW'}"] = (network, run, last)
    return rows


def prepare(
    make: Callable[[torch.Tensor], nn.Module], kind: str, last: bool, device: torch.device
) -> tuple[Step, float]:
    """Return a training step and the seconds that its first call took."""
    torch.manual_seed(0)
    images = torch.randint(0, 256, (BATCH, 3, 32, 32)).float()
    labels = torch.randint(10, (BATCH,)).to(device)
    model = make(images).to(device).train()
    images = images.to(device)
    if last:
        images, model = (
            images.contiguous(memory_format=torch.channels_last),
            model.to(memory_format=torch.channels_last),
        )
    optimizer = torch.optim.AdamW(qfx.param_groups(model, 1e-3))
    run = RUNS[kind](model)
    penalty = getattr(model, "penalty", lambda: 0.0)

    def step() -> None:
        optimizer.zero_grad()
        (F.cross_entropy(run(images), labels) + penalty()).backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    start = time.perf_counter()
    step()
    first = time.perf_counter() - start
    return step, first


def measure(steps: dict[str, Step], rounds: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return wall and CPU seconds of each step, by its name, of each round; one more round before them warms up."""
    wall: dict[str, list[float]] = {name: [] for name in steps}
    cpu: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            start, used = time.perf_counter(), time.process_time()
            step()
            if number:
                wall[name].append(time.perf_counter() - start)
                cpu[name].append(time.process_time() - used)
    return wall, cpu


def main() -> None:
    """Measure all variants and publish the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--variants", nargs="*", help="parts of names of rows; default: all")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    make = networks()
    chosen = {
        name: row
        for name, row in variants(arguments.device).items()
        if not arguments.variants or any(part in name for part in arguments.variants)
    }
    device = arguments.device
    steps, failed = {}, {}
    for name, (network, run, last) in chosen.items():
        try:
            steps[name] = prepare(make[network], run, last, device)
            print(f"{name}: first step {steps[name][1]:.1f} s", flush=True)
        except Exception as error:  # one network that cannot run must not cost the table of the others
            failed[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
            print(f"{name}: {failed[name]}", flush=True)
    wall, cpu = measure({name: step for name, (step, _) in steps.items()}, arguments.rounds)
    floats = [name for name in steps if name.startswith("float")]
    base = min(statistics.median(wall[name]) for name in floats)
    least = min(min(wall[name]) for name in floats)
    rows = [
        {
            "variant": name,
            "ms": 1000 * statistics.median(wall[name]),
            "ratio": statistics.median(wall[name]) / base,
            "ratio of minima": min(wall[name]) / least,
            "CPU, ms": 1000 * statistics.median(cpu[name]),
            "first step, s": first,
        }
        for name, (_, first) in steps.items()
    ]
    threads = f"{torch.get_num_threads()} threads, {os.cpu_count()} cores"
    facts = {package: version(package) for module, package in PEERS.items() if importlib.util.find_spec(module)}
    facts |= {"failed": failed} if failed else {}
    facts |= {"rounds": arguments.rounds, "machine": threads}
    if device.type == "cuda":
        facts["device"] = torch.cuda.get_device_name(device)
    name = "train_step" if device.type == "cpu" else "train_step_gpu"
    publish(name, "one training step of ResNet-20, batch 128", rows, **facts)


if __name__ == "__main__":
    main()
