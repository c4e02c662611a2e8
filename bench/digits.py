"""The digits network for benchmarks whose figure does not depend on training: calibrated, lowered, planned."""

import numpy as np

import qfx
from qfx.boards import Board
from qfx.design import Design
from qfx.graph import Graph
from qfx.plan import Plan, plan
from qfx.train import runs


def planned() -> tuple[Graph, Plan, np.ndarray]:
    """Return graph, plan, and the codes of the 360 test images."""
    design = Design.load("digits")
    data = runs.load_data(design)
    model = runs.float_model(design).train()
    for images in data.train_x[:640].split(64):
        model(images)  # BatchNorm statistics
    fixed = runs.fixed_model(design, model.eval(), design.content.training.widths[0])
    qfx.calibrate(fixed.eval(), data.train_x[:512].split(256))
    graph = qfx.lower(fixed, runs.example(design), design.name)
    return graph, plan(graph, Board.load(design.content.board)), graph.encode(data.test_x.numpy(), "NCHW")
