"""A tiny random checkpoint and texts to train it on, for the laws of adapters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from mull.training.data import Example
from mull.training.model import Llama, Shape, save_model
from mull.training.tokenizer import build_tokenizer, save_tokenizer

TEMPLATE = (
    "{% for m in messages %}{{ m.role }} : {{ m.content }}<eos>\n{% endfor %}"
    "{% if add_generation_prompt %}assistant : {% endif %}"
)
SUMS = [Example(f"{a} + {b} = ", f"{a + b}") for a in range(10) for b in range(10)]
WORDS = [
    "bye",
    "hi",
    "user : hi there assistant : bye system : be kind what is it ? 0123456789 + - = <> \n",
]


def checkpoint(folder: Path, *, chat: bool = False, context: int = 64, seed: int = 0) -> Path:
    """A Llama of 12,000 random float32 parameters with a word-level tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = [example.prompt + example.solution for example in SUMS]
    tokenizer = build_tokenizer([*texts, *WORDS, *(f"{n}" for n in range(10))])
    save_tokenizer(tokenizer, folder, context)
    shape = Shape(tokenizer.get_vocab_size(), width=32, layers=2, heads=2, hidden=32)
    model = Llama(Shape(**{**shape.__dict__, "context": context}))
    model.initialise(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        # Layers that begin by writing nothing would leave an adapter nothing to change.
        for name, weight in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.normal_(0.0, 0.2, generator=generator)
    save_model(model, folder)
    change(folder / "tokenizer_config.json", **({"chat_template": TEMPLATE} if chat else {}))
    return folder


def change(path: Path, **fields: Any) -> None:
    """Set fields of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
