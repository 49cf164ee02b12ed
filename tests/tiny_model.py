"""A tiny model with random weights, of the shape that is trained here, for tests to train on."""

from __future__ import annotations

from pathlib import Path

from mull.engines.torch.places import Marks
from mull.tasks.arc.compact import CHARACTERS, MARKED
from mull.training.model import Shape, policy_of, save_model
from mull.training.tokenizer import build_tokenizer, save_tokenizer


def tiny_model(
    folder: Path,
    seed: int = 0,
    context: int = 128,
    text: str = CHARACTERS,
    *,
    grids: bool = False,
) -> Path:
    """About 30,000 weights; one token a character of ``text``; with ``grids`` it knows places."""
    tokenizer = build_tokenizer([text])
    marks = None
    if grids:
        signs = (MARKED.begin, MARKED.turn, MARKED.close, "\n")
        marks = Marks(*(tokenizer.token_to_id(sign) for sign in signs))
    sizes = {"width": 32, "layers": 2, "heads": 4, "hidden": 64}
    shape = Shape(tokenizer.get_vocab_size(), context=context, marks=marks, **sizes)
    model = policy_of(shape)
    model.initialise(seed)
    save_model(model, folder)
    save_tokenizer(tokenizer, folder, context)
    return folder
