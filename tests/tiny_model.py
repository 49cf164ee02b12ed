"""A tiny model with random weights, of the shape that is trained here, for tests to train on."""

from __future__ import annotations

from pathlib import Path

from mull.tasks.arc.compact import CHARACTERS
from mull.training.model import Llama, Shape, save_model
from mull.training.tokenizer import build_tokenizer, save_tokenizer


def tiny_model(folder: Path, seed: int = 0, context: int = 128, text: str = CHARACTERS) -> Path:
    """About 30,000 weights; one token a character of ``text``."""
    tokenizer = build_tokenizer([text])
    shape = Shape(tokenizer.get_vocab_size(), width=32, layers=2, heads=4, hidden=64)
    model = Llama(Shape(**{**shape.__dict__, "context": context}))
    model.initialise(seed)
    save_model(model, folder)
    save_tokenizer(tokenizer, folder, context)
    return folder
