"""Plans: how a graph is built on a board, its resources, and its exact cycles."""

from qfx.plan.data import NodePlan as NodePlan
from qfx.plan.data import NoFitError as NoFitError
from qfx.plan.data import Plan as Plan
from qfx.plan.data import Resources as Resources
from qfx.plan.data import require_plan as require_plan
from qfx.plan.data import unroll as unroll
from qfx.plan.dataflow import network as network
from qfx.plan.fit import plan as plan
from qfx.plan.limits import limits as limits
