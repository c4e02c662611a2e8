"""The integer graph: operations, verifier, passes, interpreter and file format."""

from qfx.graph.graph import Graph as Graph
from qfx.graph.graph import GraphBuilder as GraphBuilder
from qfx.graph.graph import Node as Node
from qfx.graph.graph import require_graph as require_graph
from qfx.graph.passes import run_passes as run_passes
from qfx.graph.store import fingerprint as fingerprint
from qfx.graph.store import load as load
from qfx.graph.store import save as save
from qfx.graph.tensor import Constant as Constant
from qfx.graph.tensor import TensorType as TensorType
from qfx.graph.verify import verify as verify
