"""Spec strings and model names → objects."""

from mull.catalog.equip import EngineSpec, Equipment, equip
from mull.catalog.models import load_engine, load_policy, model_card, shipped_models
from mull.catalog.strategies import load_strategy, strategy_class, strategy_names
from mull.catalog.tasks import load_task, task_names
from mull.catalog.verifiers import (
    load_verifier,
    verifier_class,
    verifier_names,
    verifier_parameters,
)

__all__ = [
    "EngineSpec",
    "Equipment",
    "equip",
    "load_engine",
    "load_policy",
    "load_strategy",
    "load_task",
    "load_verifier",
    "model_card",
    "shipped_models",
    "strategy_class",
    "strategy_names",
    "task_names",
    "verifier_class",
    "verifier_names",
    "verifier_parameters",
]
