"""An engine without a model: scripted, seeded, on a virtual clock or in real time."""

from mull.engines.simulated.clock import VirtualClock, VirtualDeadlock, VirtualLoop, run_virtual
from mull.engines.simulated.content import Content, Echo, Script
from mull.engines.simulated.engine import SimulatedEngine
from mull.engines.simulated.faults import Fault, Faults
from mull.engines.simulated.latency import Latency, SlotStats
from mull.engines.simulated.load import load_simulated
from mull.engines.simulated.problems import LEVELS, levels, simulated_problem
from mull.engines.simulated.steps import StepModel, read_solution

__all__ = [
    "LEVELS",
    "Content",
    "Echo",
    "Fault",
    "Faults",
    "Latency",
    "Script",
    "SimulatedEngine",
    "SlotStats",
    "StepModel",
    "VirtualClock",
    "VirtualDeadlock",
    "VirtualLoop",
    "levels",
    "load_simulated",
    "read_solution",
    "run_virtual",
    "simulated_problem",
]
