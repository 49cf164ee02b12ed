"""A config → records, resumable at any kill; records → rows for reports; an estimate beforehand."""

from mull.runs.config import Config, load_config, make_config
from mull.runs.estimate import Estimate, estimate
from mull.runs.prepare import Plan, prepare
from mull.runs.records import ProblemRecord, Records, Session
from mull.runs.result import GradedCandidate, ResultRecord, Spent
from mull.runs.run import Progress, Summary, default_directory, run

__all__ = [
    "Config",
    "Estimate",
    "GradedCandidate",
    "Plan",
    "ProblemRecord",
    "Progress",
    "Records",
    "ResultRecord",
    "Session",
    "Spent",
    "Summary",
    "default_directory",
    "estimate",
    "load_config",
    "make_config",
    "prepare",
    "run",
]
