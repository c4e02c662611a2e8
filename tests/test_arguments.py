"""Every public function answers what it cannot take with a sentence of its part, before it does anything."""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import qfx
from qfx import emit, steps
from qfx.boards import Board
from qfx.emit.vectors import load as load_vectors
from qfx.errors import DesignError, EmitError, FormatError, GraphError, LowerError, PlanError, QfxError, ToolError
from qfx.errors import TrainError as Train
from qfx.fixed import Fixed
from qfx.graph import load, save
from qfx.plan import plan
from qfx.tools import csim
from qfx_sim.design import simulate
from qfx_sim.runner import BenchFailure

RECIPE = {"default": {"weight": 4, "activation": 4, "input": "u8.8"}}


def float_net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """One of everything that a function may be given."""
    torch.manual_seed(0)
    folder, x = tmp_path_factory.mktemp("arguments"), torch.rand(8, 1, 4, 4)
    net, board = float_net(), Board.load("ultra96v2")
    fresh = qfx.convert(net, RECIPE, x)
    model = qfx.calibrate(qfx.convert(net, RECIPE, x), [x])
    graph = qfx.lower(model, x)
    codes, planned = graph.encode(x.numpy(), "NCHW"), plan(graph, board, 4096)
    (folder / "file").write_text("")
    return SimpleNamespace(
        x=x, array=x.numpy(), nan=torch.full_like(x, torch.nan), net=net, fresh=fresh, model=model, graph=graph,
        codes=codes, board=board, plan=planned, rtl=emit.rtl(graph, planned, folder / "rtl"),
        hls=emit.hls(graph, planned, folder / "hls"), folder=folder, new=folder / "new",
    )  # fmt: skip


def nowhere(error: type[QfxError]) -> tuple[type[QfxError], str]:
    return error, "must be a place that can be written to, but: "


MODULE = "model must be a torch module, not ndarray"
ARRAY = "must be a tensor (torch.from_numpy(x) of an array x), not ndarray"
EMPTY = "must have at least one element, not shape (0, 1, 4, 4)"
SHAPE = "the network must take an input of shape 1x2x4, but torch says: "
GRAPH = "graph must be a Graph, such as qfx.lower(model, example) gives, not "
PLAN = "plan must be a Plan, such as qfx.plan.plan(graph, board) gives, not "
RANGE = "input codes must lie in 0..255 (u8.8), not "
FRAMES = "input codes must have shape (N, 4, 4, 1), N at least 1, not (0, 4, 4, 1)"
FLOATS = "input codes must be integers, not float32: Graph.encode makes them from real values"

CASES: list[tuple[Callable[[Any], Any], type[QfxError], str]] = [
    (lambda m: qfx.convert(m.array, RECIPE, m.x), LowerError, MODULE),
    (lambda m: qfx.convert(m.net, RECIPE, m.array), LowerError, f"example {ARRAY}"),
    (lambda m: qfx.convert(m.net, RECIPE, m.x[:0]), LowerError, f"example {EMPTY}"),
    (lambda m: qfx.convert(m.net, RECIPE, m.x[:, :, :2]), LowerError, SHAPE),
    (lambda m: qfx.convert(m.net, RECIPE, m.nan), Train, "the values that reach quantizer 'input' must be finite"),
    (lambda m: qfx.convert(m.model, RECIPE, m.x), LowerError, "model must be a float network, not one that qfx.conver"),
    (lambda m: qfx.convert(m.net, "a.yaml", m.x), Train, "recipe must be a mapping, or the Path of a YAML file, not '"),
    (lambda m: qfx.convert(m.net, Path("no.yaml"), m.x), Train, "no.yaml must exist, but there is no such file"),
    (lambda m: qfx.calibrate(m.net, [m.x]), Train, "the model must have fixed-point layers, but Sequential has none: "),
    (lambda m: qfx.calibrate(m.fresh, m.x), Train, "batches must be a list of inputs, not one tensor: write [x]"),
    (lambda m: qfx.calibrate(m.fresh, None), Train, "batches must be an iterable of inputs, such as [x], not None"),
    (lambda m: qfx.calibrate(m.fresh, [m.array]), Train, f"each batch, or its first element, {ARRAY}"),
    (lambda m: qfx.calibrate(m.fresh, [m.x[:0]]), Train, f"each batch, or its first element, {EMPTY}"),
    (lambda m: qfx.calibrate(m.fresh, [m.x[:, :, :2]]), Train, SHAPE),
    (lambda m: qfx.calibrate(m.fresh, [m.nan]), Train, "the values that reach quantizer 'input' must be finite"),
    (lambda m: qfx.calibrate(m.fresh, [m.x], percentile="a"), Train, "percentile must be a number above 0 and at most"),
    (lambda m: qfx.exact(m.net), Train, "the model must have fixed-point layers, but Sequential has none: convert it"),
    (lambda m: qfx.exact(m.fresh)(m.x), Train, "must be calibrated before it runs: call qfx.calibrate(model, batches)"),
    (lambda m: qfx.exact(m.model)(m.array), Train, f"the input {ARRAY}"),
    (lambda m: qfx.exact(m.model)(), Train, "the exact network must be given an input, but was given none"),
    (lambda m: qfx.exact(m.model)(m.x[:0]), Train, f"the input {EMPTY}"),
    (lambda m: qfx.exact(m.model)(m.x[:, :, :2]), Train, SHAPE),
    (lambda m: qfx.exact(m.model)(m.nan), Train, "the input must be finite, but NaN or infinity is among its values"),
    (lambda m: qfx.lower(m.array, m.x), LowerError, MODULE),
    (lambda m: qfx.lower(m.net, m.x), LowerError, "module '0' (Conv2d) must be a layer of qfx.nn; use qfx.convert(mod"),
    (lambda m: qfx.lower(m.fresh, m.x), LowerError, "must be calibrated"),
    (lambda m: qfx.lower(m.model, (1, 4, 4)), LowerError, "example must be a tensor"),
    (lambda m: qfx.lower(m.model, m.x[:0]), LowerError, f"example {EMPTY}"),
    (lambda m: qfx.lower(m.model, m.x[:, :, :2]), LowerError, "the model must be lowered whole, but:"),
    (lambda m: qfx.lower(m.model, m.x, name=3), LowerError, "name must be a text, not 3"),
    (lambda m: qfx.load(m.model, "a.pt"), Train, "state must be a state_dict (torch.load(path, weights_only=True), mo"),
    (lambda m: qfx.load(m.array, {}), Train, MODULE),
    (lambda m: qfx.load(m.net, {"0.bias": m.nan}), Train, "must hold finite numbers, but NaN or infinity is among tho"),
    (lambda m: qfx.param_groups(m.array, lr=1.0), Train, MODULE),
    (lambda m: qfx.param_groups(m.model, lr="a"), Train, "lr must be a number of at least 0, not 'a'"),
    (lambda m: qfx.param_groups(m.model, lr=float("nan")), Train, "lr must be a number of at least 0, not nan"),
    (lambda m: qfx.param_groups(m.model, lr=1.0, weight_decay=-1), Train, "weight_decay must be a number of at least"),
    (lambda m: qfx.freeze_bn(m.array), Train, MODULE),
    (lambda m: qfx.freeze_formats(m.array), Train, MODULE),
    (lambda m: qfx.check_optimizer(m.model, m.model), Train, "optimizer must be an optimizer of torch, not "),
    (lambda m: m.graph.encode(m.x, "NCHW"), GraphError, "must be a numpy array (x.numpy() of a tensor x), not Tensor"),
    (lambda m: m.graph.encode(m.array[:0], "NCHW"), GraphError, "N at least 1, not (0, 1, 4, 4)"),
    (lambda m: m.graph.encode(m.array + 1j, "NCHW"), GraphError, "values must be real numbers, not complex64"),
    (lambda m: m.graph.encode(m.nan.numpy(), "NCHW"), FormatError, "values to encode must be finite, but NaN"),
    (lambda m: m.graph.evaluate(m.x, "NCHW"), GraphError, "must be a numpy array (x.numpy() of a tensor x), not Tenso"),
    (lambda m: m.graph.evaluate(m.array), GraphError, "must have shape (N, 4, 4, 1) in NHWC, N at least 1, not (8, 1,"),
    (lambda m: m.graph.evaluate_codes(m.x), GraphError, "input codes must be a numpy array of integers, not Tensor"),
    (lambda m: m.graph.evaluate_codes(m.codes[:0]), GraphError, FRAMES),
    (lambda m: m.graph.evaluate_codes(m.codes * 300), GraphError, RANGE),
    (lambda m: save(m.net, m.new), GraphError, f"{GRAPH}Sequential"),
    (lambda m: save(m.graph, "/proc/x"), *nowhere(GraphError)),
    (lambda m: load("nowhere"), GraphError, "nowhere must be a readable file, but No such file or directory: lower fi"),
    (lambda m: Board.load(3), DesignError, "board must be a path, not 3"),
    (lambda m: plan(m.graph, "ultra96v2"), PlanError, 'a Board, such as Board.load("ultra96v2"), not \'ultra96v2\''),
    (lambda m: plan(m.net, m.board), PlanError, f"{GRAPH}Sequential"),
    (lambda m: plan(m.graph, m.board, "4096"), PlanError, "target_cycles must be a whole number of cycles, not '4096'"),
    (lambda m: plan(m.graph, m.board, clock_mhz="a"), PlanError, "clock_mhz must be a number from 1 to 1,000, not 'a'"),
    (lambda m: emit.hls(m.net, m.plan, m.new), EmitError, f"{GRAPH}Sequential"),
    (lambda m: emit.hls(m.graph, m.board, m.new), EmitError, f"{PLAN}Board"),
    (lambda m: emit.hls(m.graph, m.plan, m.new, part=3), EmitError, "part must be the name of a device, not 3"),
    (lambda m: emit.hls(m.graph, m.plan, "/proc/x"), *nowhere(EmitError)),
    (lambda m: emit.rtl(m.plan, m.graph, m.new), EmitError, f"{GRAPH}Plan"),
    (lambda m: emit.rtl(m.graph, None, m.new), EmitError, f"{PLAN}None"),
    (lambda m: emit.rtl(m.graph, m.plan, 3), EmitError, "folder must be a path, not 3"),
    (lambda m: emit.rtl(m.graph, m.plan, "/proc/x"), *nowhere(EmitError)),
    (lambda m: emit.rtl(m.graph, m.plan, "/proc/x/y"), *nowhere(EmitError)),
    (lambda m: emit.rtl(m.graph, m.plan, m.folder / "file" / "x"), *nowhere(EmitError)),
    (lambda m: emit.vectors(m.net, m.codes, m.new), EmitError, f"{GRAPH}Sequential"),
    (lambda m: emit.vectors(m.graph, m.codes[:0], m.new), GraphError, FRAMES),
    (lambda m: emit.vectors(m.graph, m.codes, "/proc/x"), *nowhere(EmitError)),
    (lambda m: load_vectors(3), EmitError, "folder must be a path, not 3"),
    (lambda m: csim.run(3, m.codes), ToolError, "project must be a path, not 3"),
    (lambda m: csim.run(m.rtl, m.codes), ToolError, "must be of kind 'hls'"),
    (lambda m: csim.run(m.hls, m.array), ToolError, FLOATS),
    (lambda m: csim.run(m.hls, m.codes[:0]), ToolError, FRAMES),
    (lambda m: csim.run(m.hls, m.codes * 300), ToolError, RANGE),
    (lambda m: csim.run(m.hls, m.codes, logs="/proc/x"), *nowhere(ToolError)),
    (lambda m: simulate("nowhere", m.codes), EmitError, "nowhere must be a folder written by the rtl emitter"),
    (lambda m: simulate(m.rtl, m.array), BenchFailure, FLOATS),
    (lambda m: simulate(m.rtl, m.codes[:0]), BenchFailure, FRAMES),
    (lambda m: simulate(m.rtl, m.codes * 300), BenchFailure, RANGE),
    (lambda m: simulate(m.rtl, m.codes, 3), BenchFailure, "expected must be codes by node, as Graph.evaluate_codes gi"),
    (lambda m: simulate(m.rtl, m.codes, {}), BenchFailure, "codes of shape (8, 3) for the output 'output', not none"),
    (lambda m: simulate(m.rtl, m.codes, m.graph.evaluate_codes(m.codes[:3])), BenchFailure, "'output', not (3, 3)"),
    (lambda m: simulate(m.rtl, m.codes, work="/proc/x"), *nowhere(BenchFailure)),
    (lambda m: steps.train(3), DesignError, "design must be a path, not 3"),
    (lambda m: steps.train("digits", out=3), DesignError, "out must be a path, not 3"),
    (lambda m: steps.train("digits", out="/proc/x"), DesignError, "the build folder /proc/x must be writable, but: "),
    (lambda m: steps.open_build("digits").run("trian"), DesignError, "step must be one of train, lower, plan, hls, rt"),
    (lambda m: Fixed.parse(8), FormatError, "a format must look like 's8.3' or 'u5.0' (width.frac), not 8"),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(CASES)))
def test_what_cannot_be_taken_is_refused_in_a_sentence(made: SimpleNamespace, case: int) -> None:
    call, error, said = CASES[case]
    with pytest.raises(QfxError, match=re.escape(said)) as caught:
        call(made)
    assert caught.type is error


def test_what_can_be_taken_is_taken(made: SimpleNamespace) -> None:
    assert made.graph.evaluate_codes(made.codes.astype(np.int16))["output"].shape == (8, 3)
    assert load_vectors(emit.vectors(made.graph, made.codes, str(made.new))).keys() == made.graph.by_name.keys()
