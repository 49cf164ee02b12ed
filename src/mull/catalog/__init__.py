"""Spec strings and model names → objects."""

from mull.catalog.models import load_engine, model_card, shipped_models
from mull.catalog.strategies import load_strategy, strategy_class, strategy_names
from mull.catalog.tasks import load_task, task_names

__all__ = [
    "load_engine",
    "load_strategy",
    "load_task",
    "model_card",
    "shipped_models",
    "strategy_class",
    "strategy_names",
    "task_names",
]
