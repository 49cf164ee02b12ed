"""Texts → a small policy trained from scratch in minutes, with the checkpoints that are asked for.

The tokenizer has one token for each character of a grid, and one for each heading or sentence that
is the same in all texts: what a grid is written with is all that costs tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from mull.fileio import write_atomic
from mull.tasks.arc.augment import Recipe as Augmented
from mull.tasks.arc.data import Pool
from mull.tasks.arc.grids import Puzzle
from mull.tasks.arc.stream import ArcStream, Loss, texts_of
from mull.tasks.arc.writing import writing
from mull.training.data import Corpus, fitting
from mull.training.dialogue import Encoder, TrainingText
from mull.training.loop import Progress, Recipe, Trainer, fit, held_out_loss
from mull.training.model import Llama, Shape, save_model
from mull.training.policy import SIZES
from mull.training.tokenizer import SPECIAL, UNKNOWN, save_tokenizer

PIECE = r"[#A-Z][#A-Za-z .,]*|`+|[a-z]{2,}|\n\n|[\s\S]"
"""A heading or a sentence, a fence, a word of small letters, an empty line; else a character."""
TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n\n{% endfor %}"
CONTEXT = 1024
RATES = {"s": (4e-3, 2e-3), "m": (2e-3, 1e-3)}
TEXTS_A_BATCH = 8


@dataclass(frozen=True)
class Data:
    """Training texts and validation texts of one writing, encoded."""

    training: Corpus
    validation: Corpus
    tokenizer: Tokenizer


def tokenizer_of(texts: Iterable[str]) -> Tokenizer:
    """The tokenizer whose vocabulary is every piece of the texts; an ordinary Hugging Face one.

    >>> tokenizer = tokenizer_of(["### Input\\n\\n```grid shape: 2x3\\n1 012"])
    >>> tokenizer.encode("### Input\\n\\n1 02", add_special_tokens=False).tokens
    ['### Input', '\\n\\n', '1', ' ', '0', '2']
    """
    split = pre_tokenizers.Split(Regex(PIECE), behavior="isolated")
    pieces = {piece for text in texts for piece, _ in split.pre_tokenize_str(text)}
    vocabulary = {name: at for at, name in enumerate([*SPECIAL.values(), UNKNOWN, *sorted(pieces)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", vocabulary["<bos>"])]
    )
    names = (*SPECIAL.values(), UNKNOWN)
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in names])
    return tokenizer


def save_words(tokenizer: Tokenizer, folder: Path) -> None:
    """The tokenizer's files, with the simplest chat template: turns with an empty line between."""
    folder.mkdir(parents=True, exist_ok=True)
    save_tokenizer(tokenizer, folder, CONTEXT)
    path = folder / "tokenizer_config.json"
    write_atomic(path, json.dumps(json.loads(path.read_text()) | {"chat_template": TEMPLATE}))


def encoded(texts: Sequence[TrainingText], encoder: Encoder) -> Corpus:
    """Texts as a corpus, the loss where each says so."""
    rows = [encoder(text) for text in texts]
    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    given = np.array([row.said.index(True) for row in rows], dtype=np.int32)
    ids = np.concatenate([np.array(row.ids, dtype=np.uint16) for row in rows])
    return Corpus(ids, starts, given, None, np.concatenate([np.array(r.said) for r in rows]))


def data(
    format: str,
    sources: Sequence[Puzzle | Pool],
    held: Sequence[Puzzle],
    count: int,
    folder: Path,
    recipe: Augmented | None = None,
    loss: Loss = "outputs",
) -> Data:
    """``count`` training texts, the same puzzles for every format, and the held-out ones.

    The tokenizer is written into ``folder``: one for all formats that are to be compared.
    """
    form = writing(format)
    augmented = Augmented(geometry=False, own=0.0) if recipe is None else recipe
    stream = ArcStream(tuple(sources), form, loss, augmented, seed=0)
    encoder = Encoder.of(folder)
    return Data(
        fitting(encoded(list(islice(stream(), count)), encoder), CONTEXT),
        encoded(texts_of(held, form), encoder),
        Tokenizer.from_file(str(folder / "tokenizer.json")),
    )


@dataclass(frozen=True)
class Plan:
    """A training: ``epochs`` over the texts, ``checkpoints`` kept at even shares of it; ``rate``
    multiplies the size's peak rates.
    """

    size: str = "s"
    seed: int = 0
    epochs: float = 1.0
    checkpoints: int = 1
    batch: int = TEXTS_A_BATCH
    rate: float = 1.0


def train(plan: Plan, made: Data, folder: Path) -> list[dict[str, float]]:
    """Train and write each checkpoint into ``folder/<number>``; resumes, and skips what is there.

    One line a checkpoint: tokens and texts seen, training and validation loss (nats a token of the
    answer), seconds. A batch has as many texts in every format, so that equal texts are equal
    steps.
    """
    record = folder / "checks.json"
    if record.exists():
        return list(json.loads(record.read_text()))
    torch.set_num_threads(1)
    mean = made.training.tokens / len(made.training)
    size = SIZES[plan.size]
    shape = Shape(
        vocabulary=made.tokenizer.get_vocab_size(),
        width=size["width"],
        layers=size["layers"],
        heads=size["heads"],
        hidden=size["hidden"],
        context=CONTEXT,
    )
    model = Llama(shape)
    model.initialise(plan.seed)
    matrix_rate, rate = RATES[plan.size]
    recipe = Recipe(
        tokens=int(plan.epochs * made.training.tokens),
        batch_tokens=round(plan.batch * mean),
        matrix_rate=matrix_rate * plan.rate,
        rate=rate * plan.rate,
        precision="bfloat16",
        seed=plan.seed,
    )
    trainer = Trainer(model, made.training, recipe)
    checks: list[dict[str, float]] = []

    def check(progress: Progress) -> None:
        due = 1 + int(plan.checkpoints * trainer.progress - 1e-9)
        if trainer.progress >= 1.0 or due > len(checks) + 1:
            where = folder / str(len(checks) + 1)
            save_model(model, where)
            save_words(made.tokenizer, where)
            checks.append(
                {
                    "share": round(trainer.progress, 4),
                    "tokens": trainer.seen,
                    "texts": round(plan.epochs * len(made.training) * trainer.progress),
                    "loss": progress.loss,
                    "validation": round(held_out_loss(model, made.validation), 5),
                    "seconds": round(trainer.seconds, 1),
                }
            )
            write_atomic(folder / "so-far.json", json.dumps(checks))

    if (folder / "so-far.json").exists():
        checks += json.loads((folder / "so-far.json").read_text())
    fit(trainer, folder, log_every=10, on_progress=check)
    write_atomic(record, json.dumps(checks))
    return checks
