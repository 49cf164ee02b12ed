"""Any OpenAI-compatible endpoint over HTTP: ``load_openai("http://host:8000/v1#model")``."""

from mull.engines.openai.calls import Stats
from mull.engines.openai.endpoint import DEFAULT_KEY, Endpoint, Secret
from mull.engines.openai.engine import OpenAIEngine
from mull.engines.openai.load import load_openai

__all__ = ["DEFAULT_KEY", "Endpoint", "OpenAIEngine", "Secret", "Stats", "load_openai"]
