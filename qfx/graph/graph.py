"""The graph: named nodes in topological order, their constants, and what the whole computes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from qfx.arguments import require_kind
from qfx.errors import GraphError, QfxError
from qfx.fixed import Fixed, Overflow, Rounding, decode, encode, require_codes
from qfx.graph.ops import Input, Op
from qfx.graph.tensor import Constant, Operand, TensorType

Layout = Literal["NHWC", "NCHW"]


@dataclass(frozen=True)
class Node:
    """One operation with a name; its only result bears the same name."""

    name: str
    op: Op
    inputs: tuple[str, ...]  # names of nodes or constants, in the op's order
    type: TensorType


@dataclass(frozen=True, eq=False)
class Graph:
    """An integer network: the only truth about formats and weights after training."""

    name: str
    nodes: tuple[Node, ...]  # topological order
    constants: Mapping[str, Constant]
    outputs: tuple[str, ...]

    @cached_property
    def by_name(self) -> dict[str, Node]:
        """The nodes by name."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def consumers(self) -> dict[str, tuple[Node, ...]]:
        """For each node, the nodes that read it, in order; a node that reads it twice is named twice."""
        found: dict[str, list[Node]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            for name in node.inputs:
                if name in found:
                    found[name].append(node)
        return {name: tuple(nodes) for name, nodes in found.items()}

    @property
    def input(self) -> Node:
        """The one Input node."""
        return next(node for node in self.nodes if isinstance(node.op, Input))

    def operands(self, node: Node) -> tuple[Operand, ...]:
        """The types of a node's tensors and its constants, in the op's order."""
        return tuple(
            self.constants[name] if name in self.constants else self.by_name[name].type for name in node.inputs
        )

    def tensors(self, node: Node) -> tuple[str, ...]:
        """The names of those operands that are tensors."""
        return tuple(name for name in node.inputs if name not in self.constants)

    def replace_nodes(self, nodes: tuple[Node, ...], constants: Mapping[str, Constant] | None = None) -> "Graph":
        """Return the graph with other nodes; constants that nobody reads any more are left out."""
        constants = self.constants if constants is None else constants
        used = {name for node in nodes for name in node.inputs}
        kept = {name: constant for name, constant in constants.items() if name in used}
        return replace(self, nodes=nodes, constants=kept)

    def evaluate(self, x: np.ndarray, layout: Layout = "NHWC") -> np.ndarray | dict[str, np.ndarray]:
        """Return the network's real results for real inputs; the input is encoded with RND and SAT.

        Args:
            x: values of shape (N, *input shape), or with ``layout="NCHW"`` (N, C, H, W), or (N, C, L) if H is 1.

        Returns:
            float64 values, images in the layout of the input; with several outputs a dict by name.
        """
        codes = self.evaluate_codes(self.encode(x, layout))
        values = {name: decode(codes[name], self.by_name[name].type.fixed) for name in self.outputs}
        if layout == "NCHW":
            values = {name: v.transpose(0, 3, 1, 2) if v.ndim == 4 else v for name, v in values.items()}
            if x.ndim == 3:
                values = {name: v[:, :, 0] if v.ndim == 4 else v for name, v in values.items()}
        return values[self.outputs[0]] if len(values) == 1 else values

    def encode(self, x: np.ndarray, layout: Layout = "NHWC") -> np.ndarray:
        """Return the input's int64 codes (N, *input shape) for real values, encoded with RND and SAT."""
        if layout not in ("NHWC", "NCHW"):
            raise GraphError(f"layout must be 'NHWC' or 'NCHW', not {layout!r}")
        require_kind(GraphError, "the input's values", x, np.ndarray, "a numpy array (x.numpy() of a tensor x)")
        if x.dtype.kind not in "biuf":
            raise GraphError(f"the input's values must be real numbers, not {x.dtype}")
        if layout == "NCHW" and x.ndim == 3 and self.input.type.shape[:-2] == (1,):
            x = x[:, :, None]
        if layout == "NCHW" and x.ndim == 4:
            x = x.transpose(0, 2, 3, 1)
        self._check_shape(x, layout)
        return encode(x, self.input.type.fixed, Rounding.RND, Overflow.SAT)

    def evaluate_codes(self, codes: np.ndarray, all_nodes: bool = False) -> dict[str, np.ndarray]:
        """Return the integer codes of the outputs, or of every node, by name.

        Args:
            codes: the input's codes, integers of shape (N, *input shape).

        Returns:
            int64 arrays of shape (N, *the node's shape).
        """
        require_codes(GraphError, "input codes", codes, self.input.type.shape, self.input.type.fixed)
        known: dict[str, np.ndarray] = {self.input.name: codes.astype(np.int64)}
        last_use = {name: node.name for node in self.nodes for name in node.inputs}
        for node in self.nodes:
            if node.name not in known:
                values = [self.constants[i].codes if i in self.constants else known[i] for i in node.inputs]
                known[node.name] = node.op.evaluate(values, self.operands(node))
            if not all_nodes:
                for name in self.tensors(node):
                    if last_use[name] == node.name and name not in self.outputs:
                        known.pop(name, None)
        return known if all_nodes else {name: known[name] for name in self.outputs}

    def _check_shape(self, x: np.ndarray, layout: Layout) -> None:
        shape = self.input.type.shape
        if x.shape[1:] != shape or x.ndim != len(shape) + 1 or not len(x):
            asked = (shape[2], *shape[:2]) if layout == "NCHW" and len(shape) == 3 else shape
            given = (x.shape[0], x.shape[3], *x.shape[1:3]) if layout == "NCHW" and x.ndim == 4 else x.shape
            raise GraphError(
                f"the input {self.input.name!r} must have shape (N, {', '.join(map(str, asked))}) in {layout}, "
                f"N at least 1, not {given}"
            )


def require_graph(graph: Graph, error: type[QfxError] = GraphError) -> None:
    """Raise ``error`` unless ``graph`` is one."""
    require_kind(error, "graph", graph, Graph, "a Graph, such as qfx.lower(model, example) gives")


class GraphBuilder:
    """Collects nodes in order and infers their types: how lowering, tests and tools make a graph."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: list[Node] = []
        self.constants: dict[str, Constant] = {}
        self._types: dict[str, TensorType] = {}

    def constant(
        self, name: str, codes: np.ndarray, fixed: Fixed, max_digits: int | None = None, signed_digits: bool = False
    ) -> str:
        """Add a constant (see Constant) and return its name."""
        self._require_new(name)
        self.constants[name] = Constant(codes, fixed, max_digits, signed_digits)
        return name

    def add(self, name: str, op: Op, *inputs: str) -> str:
        """Add a node whose inputs are known already and return its name."""
        self._require_new(name)
        for operand in inputs:
            if operand not in self._types and operand not in self.constants:
                raise GraphError(f"node {name!r}: the input {operand!r} must be added before the node that reads it")
        operands = [self.constants[i] if i in self.constants else self._types[i] for i in inputs]
        try:
            kind = op.infer(operands)
        except QfxError as error:
            raise GraphError(f"node {name!r} ({type(op).__name__}): {error}") from error
        self.nodes.append(Node(name, op, inputs, kind))
        self._types[name] = kind
        return name

    def type(self, name: str) -> TensorType:
        """The type of a node added before."""
        return self._types[name]

    def build(self, *outputs: str) -> Graph:
        """Return the verified graph."""
        from qfx.graph.verify import verify  # verify needs Graph

        graph = Graph(self.name, tuple(self.nodes), dict(self.constants), outputs)
        verify(graph)
        return graph

    def _require_new(self, name: str) -> None:
        if name in self._types or name in self.constants:
            raise GraphError(f"each name must be used once in a graph, but {name!r} is used twice")
