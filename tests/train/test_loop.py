"""The choices of the loop: schedules, averages, accumulation, bfloat16, clipping; each does what it says."""

import importlib.util
import re
import sysconfig
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import qfx.nn as qnn
from qfx.errors import TrainError
from qfx.train import Data, Freeze, Schedule, Settings, fit
from qfx.train.average import Average, format_names
from qfx.train.pace import Pace
from qfx.train.schedule import scheduler
from qfx.train.state import State

SPEC = importlib.util.spec_from_file_location("loop_job", Path(__file__).with_name("job.py"))
assert SPEC and SPEC.loader
job = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(job)

HEADER = Path(sysconfig.get_path("include")) / "Python.h"
PLAIN = Settings(epochs=2, lr=0.01, batch=16)


def rates(schedule: Schedule, epochs: int, per_epoch: int) -> list[float]:
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=1.0)
    plan, found = scheduler(optimizer, schedule, epochs, per_epoch), []
    for _ in range(epochs * per_epoch):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        plan.step()
    return found


def test_a_step_schedule_warms_up_and_falls_at_its_milestones() -> None:
    found = rates(Schedule("step", 0.2, (2, 4), 0.1), 5, 4)
    expected = [0.25, 0.5, 0.75, 1.0, *[1.0] * 4, *[0.1] * 8, *[0.01] * 4]
    assert found == pytest.approx(expected)


def test_frozen_formats_stay_as_calibrated_while_weights_learn() -> None:
    learned, frozen = (fit(job.network(), job.data(), replace(job.SETTINGS, formats=f)) for f in ("learned", "frozen"))
    assert any(move.moved for move in qnn.moves(learned).values())
    assert not any(move.moved for move in qnn.moves(frozen).values())
    assert not torch.equal(frozen.get_submodule("0").weight, job.network().get_submodule("0").weight)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while it compiles
@pytest.mark.skipif(not HEADER.is_file(), reason="compiled code needs Python's headers: apt install python3.11-dev")
def test_a_compiled_network_learns_the_same_to_float_accuracy() -> None:
    found = []
    for asked in (False, True):
        model = job.network()
        model.get_submodule("3").p = 0.0  # compiled code draws other random numbers
        found.append(fit(model, job.data(), replace(PLAIN, epochs=1, freeze=Freeze(0, 0), compile=asked)))
    plain, compiled = found
    for (name, one), two in zip(plain.named_parameters(), compiled.parameters(), strict=True):
        assert one.shape == two.shape and torch.allclose(one, two, atol=2e-3), name
    x = job.data().test_x
    assert torch.equal(qnn.exact(compiled)(x), compiled(x).double())


def test_without_the_headers_of_python_compiling_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    said = rf"training.compile needs Python's headers, but {tmp_path}/Python.h is missing: .* apt install python3"
    with pytest.raises(TrainError, match=said):
        fit(job.network(), job.data(), replace(PLAIN, compile=True))


@pytest.mark.parametrize("steps", [1, 10, 19, 20, 21, 40])
def test_a_cosine_rises_falls_and_has_a_rate_for_any_number_of_steps(steps: int) -> None:
    found = rates(Schedule(), 1, steps)
    assert max(found) == pytest.approx(1.0, abs=0.1) or steps == 1
    assert found[-1] < 1e-4


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"schedule": Schedule("step", milestones=(1, 2))},
            r"milestones must lie before epoch 2, the last, not \[1, 2\]",
        ),
        ({"accumulate": 17}, "accumulate must be at most the batch, 16, not 17"),
        ({"ema": 1.0}, "ema must be a number of at least 0 and below 1, not 1.0"),
        ({"epochs": 1.5}, "epochs must be a whole number of at least 1, not 1.5"),
        ({"epochs": -1, "schedule": Schedule("step", milestones=(1,))}, "epochs must be a whole number of at least 1"),
        ({"batch": "16"}, "batch must be a whole number of at least 1, not '16'"),
        ({"seed": True}, "seed must be a whole number of at least 0, not True"),
        ({"lr": float("nan")}, "lr must be a number of at least 0, not nan"),
        ({"lr": "1e-3"}, "lr must be a number of at least 0, not '1e-3'"),
        ({"clip": 0}, "clip must be a number above 0, not 0"),
        ({"frac_lr": 0}, "frac_lr must be a number above 0, not 0"),
        ({"precision": "fp16"}, "precision must be 'float32' or 'bfloat16', not 'fp16'"),
        ({"formats": "x"}, "formats must be 'learned' or 'frozen', not 'x'"),
        ({"schedule": "step"}, "schedule must be a Schedule, not 'step'"),
        ({"distill": 0.7}, "distill must be a Distill, not 0.7"),
        ({"compile": 1}, "compile must be a bool, not 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(TrainError, match=said):
        replace(PLAIN, **changes)  # type: ignore[arg-type]


def first_gradients(parts: int) -> dict[str, torch.Tensor]:
    """The gradients that the optimizer's first step is given, a batch computed in parts."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 2))  # no BatchNorm: it sees parts
    source = job.data().train_x
    model = qnn.calibrate(qnn.convert(net, None, source[:2]), [source])
    found: list[dict[str, torch.Tensor]] = []
    step = torch.optim.AdamW.step

    def noted(self: torch.optim.AdamW, *arguments: object) -> object:
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        return step(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", noted)
        fit(model, job.data(), replace(PLAIN, epochs=1, batch=90, accumulate=parts, freeze=Freeze(0, 0)))
    return found[0]


def differ(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> list[str]:
    return [name for name in a if (a[name] - b[name]).abs().max() > 0.02 * a[name].abs().max()]


def test_a_batch_in_parts_gives_the_gradients_of_the_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = first_gradients(1)
    assert any(name.endswith(".frac") and gradient.abs().max() > 0 for name, gradient in whole.items())
    assert differ(whole, first_gradients(4)) == []
    monkeypatch.setattr("qfx.train.loop.scale_format_gradients", lambda model, parts: None)
    assert differ(whole, first_gradients(4)) != []


def test_clipping_bounds_the_first_step_of_plain_descent(monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []
    step = torch.optim.AdamW.step

    def noted(self: torch.optim.AdamW, *arguments: object) -> object:
        found = [p.grad.norm() for group in self.param_groups for p in group["params"] if p.grad is not None]
        norms.append(torch.stack(found).norm().item())
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    fit(job.network(), job.data(), replace(PLAIN, clip=1e-3))
    assert max(norms) <= 1e-3 * 1.001
    norms.clear()
    fit(job.network(), job.data(), PLAIN)
    assert max(norms) > 1e-3


def test_bfloat16_reaches_convolutions_and_not_quantizers() -> None:
    seen: dict[str, set[torch.dtype]] = {"scores": set(), "quantized": set()}
    model = job.network()
    model.get_submodule("0").register_forward_hook(lambda _, __, y: seen["scores"].add(y.dtype))
    model.get_submodule("0").input_quant.register_forward_hook(lambda _, __, y: seen["quantized"].add(y.dtype))
    fit(model, job.data(), replace(PLAIN, precision="bfloat16"))
    assert seen == {"scores": {torch.bfloat16}, "quantized": {torch.float32}}


def test_the_average_is_what_is_returned_and_its_formats_are_those_that_were_frozen() -> None:
    model = job.network()
    states: list[State] = []
    settings = replace(PLAIN, epochs=4, ema=0.9, freeze=Freeze(0.3, 0.3))
    start = State.start

    def noted(*arguments: object) -> State:
        states.append(start(*arguments))  # type: ignore[arg-type]
        return states[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(State, "start", noted)
        found = fit(model, job.data(), settings)
    average = states[0].average
    assert average and found is model
    named = {**dict(found.named_parameters()), **dict(found.named_buffers())}
    assert all(torch.equal(named[name], tensor) for name, tensor in average.tensors.items())
    assert all(torch.equal(named[name], named[name].round()) for name in format_names(found))
    last = fit(job.network(), job.data(), replace(settings, ema=0.0))
    assert not torch.equal(last.get_submodule("0").weight, found.get_submodule("0").weight)
    assert not torch.equal(last.get_submodule("1").running_mean, found.get_submodule("1").running_mean)


def test_an_average_moves_by_the_decay() -> None:
    net = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(net.weight)
    average = Average(net, 0.75)
    nn.init.ones_(net.weight)
    average.update(net, 1000)
    assert average.tensors["weight"].item() == 0.25
    average.update(net, 0)  # early on it follows
    assert average.tensors["weight"].item() == pytest.approx(0.25 + 0.9 * 0.75)


def test_progress_tells_the_part_that_is_done_epoch_and_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qfx.train.pace.time.monotonic", lambda: 0.0)  # or a slow machine tells more
    told: list[tuple[float, str]] = []
    fit(job.network(), job.data(), PLAIN, progress=lambda done, doing: told.append((done, doing)))
    assert [done for done, _ in told] == [0.5, 1.0]
    assert re.fullmatch(r"epoch 2/2, loss 0\.\d+", told[1][1])


def test_progress_is_told_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("qfx.train.pace.time.monotonic", lambda: now[0])
    pace = Pace()
    now[0] = 50.0
    assert pace.is_due() and not pace.is_due()


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = job.data()
    fit(job.network(), Data(source.train_x, source.train_y, source.test_x, source.test_y), PLAIN)
    assert list(tmp_path.iterdir()) == []


def standing(settings: Settings) -> tuple[list[bool], list[bool]]:
    """In each step of the loop: whether BatchNorm's statistics stand still, and whether binary points do."""
    found: tuple[list[bool], list[bool]] = ([], [])
    model = job.network()
    norm = model.get_submodule("1")
    points = next(q for q in qnn.quantizers(model).values() if q.learned).frac

    def look(*_: object) -> None:
        found[0].append(norm.frozen)
        found[1].append(not points.requires_grad)

    norm.register_forward_hook(look)
    fit(model, job.data(64), settings)
    return found


@pytest.mark.parametrize(("bn", "formats"), [(0.5, 0.25), (0.25, 0.5), (0.0, 1.0), (1.0, 0.0), (0.5, 0.5)])
def test_statistics_and_binary_points_stand_still_in_their_last_parts_of_the_steps(bn: float, formats: float) -> None:
    found = standing(replace(PLAIN, freeze=Freeze(bn, formats)))  # 8 steps
    assert found == tuple([step >= 8 * (1 - part) for step in range(8)] for part in (bn, formats))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Freeze(-0.1, 0.2), "freeze.bn must be a part of the steps from 0 to 1, not -0.1"),
        (lambda: Freeze(0.2, 1.1), "freeze.formats must be a part of the steps from 0 to 1, not 1.1"),
        (lambda: Schedule("linear"), "kind of a schedule must be 'cosine' or 'step', not 'linear'"),  # type: ignore[arg-type]
        (lambda: Schedule("step"), "a schedule must have milestones if it is a step schedule, and only then"),
        (lambda: Schedule(milestones=(1,)), "a schedule must have milestones if it is a step schedule, and only then"),
        (lambda: Schedule("step", milestones=(3, 1)), r"milestones must rise, not \[3, 1\]"),
        (lambda: Schedule("step", milestones=(1.5,)), "milestone must be a whole number of at least 1, not 1.5"),  # type: ignore[arg-type]
        (lambda: Schedule("step", milestones=3), "milestones must be a tuple of epochs, not 3"),  # type: ignore[arg-type]
        (lambda: Schedule(warmup=1), "warmup must be a number of at least 0 and below 1, not 1"),
        (lambda: Schedule(factor=0), "factor must be a number above 0 and at most 1, not 0"),
    ],
)
def test_parts_of_settings_that_cannot_be_are_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(TrainError, match=said):
        make()


def test_the_rate_of_binary_points_is_that_asked_for_or_lets_a_wrong_start_mend() -> None:
    def rate(steps: int, **options: float) -> float:
        settings = replace(PLAIN, epochs=1, lr=1e-3, **options)
        state = State.start(job.network(), settings, steps)
        return max(group["max_lr"] for group in state.optimizer.param_groups)

    assert rate(2500) == pytest.approx(0.0032) and rate(100) == pytest.approx(0.035) and rate(100, frac_lr=0.5) == 0.5


@pytest.mark.parametrize(("labels", "said"), [((5, 1), "1..5"), ((-1, 1), "-1..1"), ((0, 2), "0..2")])
def test_labels_beyond_the_scores_are_refused_at_the_first_step(labels: tuple[int, int], said: str) -> None:
    x, y = job.data().train_x[:32], torch.tensor(labels).repeat(16)
    message = rf"^train labels must lie in 0..1, since the network gives 2 scores, not in {said}$"
    with pytest.raises(TrainError, match=message):
        fit(job.network(), Data(x, y, x, y), job.SETTINGS)


def test_what_is_no_score_a_class_is_refused_without_a_loss() -> None:
    x, y = torch.rand(8, 1, 6, 6), torch.zeros(8, dtype=torch.long)
    model = nn.Conv2d(1, 2, 3)
    said = r"^the network must give one score a class, a tensor \(N, classes\), not \(8, 2, 4, 4\): give fit a loss of"
    with pytest.raises(TrainError, match=said):
        fit(model, Data(x, y, x, y), Settings(epochs=1, lr=1e-3, batch=8))
