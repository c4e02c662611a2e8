"""One rank of a training: what it sees, and the formats that it ends with, as JSON; also alone, on all the data.

Usage: ranks_job.py FOLDER RANK RANKS KIND
"""

import copy
import json
import sys
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

import qfx.nn as qnn
from qfx.boards import Board
from qfx.errors import TrainError
from qfx.nn import ranks
from qfx.plan import limits
from qfx.train import Data, DigitLimit, Hardware, HardwareCost, Schedule, Settings, budget, fit, loop
from qfx.train.sizes import learned_sizes
from qfx.train.together import leaves_out, synchronous


def network(points: dict[str, object] | None = None, immature: bool = False) -> nn.Module:
    """The same float network on each rank, converted."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
    net[1].running_mean.fill_(0.0 if immature else 2.0**-10)
    signed = {
        "width": 8,
        "signed": True,
    }  # unsigned, a channel that starts clipped steps by what Adam makes of rounding
    default = {"weight": 3, "activation": 3, "elementwise": signed, **(points or {})}
    return qnn.convert(net, {"default": default}, torch.zeros(2, 1, 6, 6))


def images(rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What each rank sees: other images, those of the second one 8 times as large."""
    x = torch.rand(64, 1, 6, 6, generator=torch.Generator().manual_seed(rank)) * 8.0**rank
    return x, (x[:, 0, -1].sum(1) > x[:, 0, 0].sum(1)).long()


def by_hand(shares: list[int], immature: bool = False) -> dict[str, object]:
    """Calibrate and train with a loop of one's own on the images of some ranks."""
    model = qnn.calibrate(network(immature=immature).eval(), [images(rank)[0] for rank in shares])
    calibrated = formats(model)
    corrected = qnn.correct(copy.deepcopy(model), [images(rank)[0] for rank in shares])
    for quantizer in qnn.quantizers(model).values():
        if quantizer.axis == 1:
            quantizer.start_at(quantizer.frac_now + 1.55, quantizer.signed)
    network_ = synchronous(model.train())
    optimizer = torch.optim.AdamW(qnn.param_groups(model, 0.01))
    x, y = (torch.cat(parts) for parts in zip(*map(images, shares), strict=True))
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network_(x), y).backward()
        optimizer.step()
    ranks._alone = False
    return {
        "calibrated": calibrated,
        "trained": formats(model),
        "refused": refusal(model),
        "mean": model.get_submodule("1").running_mean.tolist(),
        "corrected": [p.tolist() for name, p in corrected.named_parameters() if name.endswith("bias")],
    }


def refusal(model: nn.Module) -> str:
    """What is said to a network whose formats differ between the ranks; nothing if they do not."""
    try:
        synchronous(model)
    except TrainError as error:
        return str(error)
    return ""


def by_fit(folder: Path) -> dict[str, object]:
    """Train with `fit`, every option on, images of both sizes in each batch."""
    x, y = (torch.cat(parts) for parts in zip(images(0), images(1), strict=True))
    model = qnn.calibrate(network().eval(), x[ranks.rank() :: ranks.ranks()].split(64))
    schedule = Schedule("step", milestones=(3,))
    settings = Settings(epochs=4, lr=0.01, batch=32, schedule=schedule, accumulate=1, clip=1.0, ema=0.9)
    fit(model, Data(x, y, x, y), settings, folder=folder)
    return {"trained": formats(model), "mean": model.get_submodule("1").running_mean.tolist(), "moved": moved(model)}


def by_digits(folder: Path) -> dict[str, object]:
    """Train with `fit` within a budget of digits, K learned for each channel."""
    x, y = (torch.cat(parts) for parts in zip(images(0), images(1), strict=True))
    weight = {"width": 8, "digits": {"k": 3, "signed": True, "learn": True}}
    model = qnn.calibrate(network({"weight": weight}).eval(), x[ranks.rank() :: ranks.ranks()].split(64))
    settings = Settings(epochs=12, lr=0.01, batch=32, digits=DigitLimit(mean=1.2))
    fit(model, Data(x, y, x, y), settings, folder=folder)
    k = {path: move.now for path, move in qnn.digit_moves(model).items()}
    return {"trained": formats(model), "k": k, "digits": int(qnn.nonzero_digits(model))}


def by_budget(folder: Path, fault: bool = False) -> dict[str, object]:
    """Train with `fit` within a budget of LUTs, widths learned; at fault, the second rank pays twice."""
    x, y = (torch.cat(parts) for parts in zip(images(0), images(1), strict=True))
    learned = {"width": 6, "learn_width": True}
    model = network({"input": "u4.0", "weight": learned, "activation": learned})
    mine = x[ranks.rank() :: ranks.ranks()].split(64)
    qnn.calibrate(model.eval(), mine)
    board = Board.load("ultra96v2")
    free = HardwareCost(model, x, board, 100, limits(board, {"dsp": 0}))
    most = int(0.9 * free.local.values["lut"])
    held = budget.start(HardwareCost(model, x, board, 100, limits(board, {"lut": most, "dsp": 0})), mine, 16)
    held.prices["lut"] = 0.1  # as if widths had grown
    charged: list[float] = []

    def charge(self: budget.Budget) -> None:
        known = learned_sizes(model).values()
        before = sum(q.bits.grad.double().sum().item() for q in known if q.bits.grad is not None)
        for _ in range(2 if fault and ranks.rank() else 1):
            own(self)
        charged.append(sum(q.bits.grad.double().sum().item() for q in known if q.bits.grad is not None) - before)

    own, budget.Budget.charge = budget.Budget.charge, charge  # type: ignore[method-assign]
    refused = ""
    try:
        fit(model, Data(x, y, x, y), Settings(epochs=4, lr=0.01, batch=32, ema=0.9), folder=folder, budget=held)
    except TrainError as error:
        refused = str(error)
    bits = {name: q.bits.tolist() for name, q in learned_sizes(model).items()}
    found = {"bits": bits, "charged": charged, "prices": held.prices, "refused": refused, "most": most}
    return {"trained": formats(model), **found, **budget.reached(held.cost)}


def by_allocation(folder: Path) -> dict[str, object]:
    """Allocate widths, each rank by its own images."""
    x = images(0)[0], images(1)[0]
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)).eval()
    mine = x[ranks.rank()].split(64) if ranks.ranks() > 1 else [*x]
    hardware = Hardware(Board.load("ultra96v2"), 100)
    recipe = {"default": {"input": "u4.0"}}
    found = qnn.allocate(net, mine, {"lut": 1000, "dsp": 0}, recipe, (2, 4, 8), hardware=hardware)
    return {"widths": found.widths, "cost": found.cost}


class Idle(nn.Module):
    """A network with a layer that no result needs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.used, self.idle, self.norm = nn.Linear(36, 2), nn.Linear(36, 2), nn.BatchNorm1d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.norm(self.used(x.flatten(1)))
        return scores


def by_idle(folder: Path) -> dict[str, object]:
    """Train with `fit` a network that leaves a layer out, and again where that is not seen."""
    x, y = (torch.cat(parts) for parts in zip(images(0), images(1), strict=True))
    data, settings, net = Data(x, y, x, y), Settings(epochs=1, lr=0.01, batch=32), Idle()
    before = copy.deepcopy(net.state_dict())
    looked = leaves_out(net.train(), x[:2]), all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    fit(net, data, settings)
    changed = [name for name, value in net.named_parameters() if not torch.equal(value, before[name])]
    refused, loop.leaves_out = "", lambda model, x: False  # type: ignore[assignment]
    try:
        fit(Idle(), data, settings)
    except TrainError as error:
        refused = str(error)
    used = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
    return {"looked": [*looked, leaves_out(used, x[:2])], "changed": changed, "refused": refused}


def formats(model: nn.Module) -> dict[str, str]:
    """The format of every quantizer."""
    return {path: str(quantizer.format()) for path, quantizer in qnn.quantizers(model).items()}


def moved(model: nn.Module) -> int:
    """How many binary points are not where calibration put them."""
    return sum(move.moved for move in qnn.moves(model).values())


def main(folder: Path, rank: int, count: int, kind: str) -> None:
    """Join the others, train, and write what came out."""
    torch.set_num_threads(1)
    if count > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=count)
    if kind == "fault":  # each rank goes its own way, without a word
        ranks._alone = True
    shares = [rank] if count > 1 else [0, 1]
    fits = {"fit": by_fit, "digits": by_digits, "budget": by_budget, "allocate": by_allocation, "idle": by_idle}
    fits["twice"] = partial(by_budget, fault=True)
    found = fits[kind](folder / "run") if kind in fits else by_hand(shares, kind == "immature")
    (folder / f"{rank}.json").write_text(json.dumps(found), encoding="utf-8")
    if count > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
