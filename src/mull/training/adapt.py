"""A model and a few texts → the same model, trained for a few more steps: test-time fine-tuning.

All weights are trained, by the recipe of every other training here. For models that ``mull train``
wrote, or models of exactly their shape.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from mull.engines.adapt import AdaptRecipe, OnStep, Parts, TrainStep
from mull.training.data import batches, encode_parts, fitting
from mull.training.loop import Recipe, Trainer
from mull.training.model import Llama, load_model, read_shape, save_model
from mull.training.tokenizer import load_tokenizer, save_tokenizer

_ALL: Final = 1 << 62
_NAMES: Final = ("architectures", "torch_dtype", "pad_token_id", "bos_token_id", "eos_token_id")
"""Fields of a config that change no number."""


def trainable(folder: Path) -> bool:
    """Whether a folder holds a model of the one shape that is trained here, with its tokenizer."""
    try:
        config: Mapping[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
        shape = read_shape(folder)
    except (OSError, KeyError, ValueError, TypeError, ZeroDivisionError):
        return False
    wanted = {name: value for name, value in shape.config().items() if name not in _NAMES}
    same = all(config.get(name) == value for name, value in wanted.items())
    own = config.get("head_dim") in (None, shape.head_width) and not config.get("rope_scaling")
    return same and own and (folder / "tokenizer.json").is_file()


def adapted(
    folder: Path,
    examples: Sequence[Parts],
    recipe: AdaptRecipe,
    *,
    device: str = "cpu",
    on_step: OnStep = lambda step: True,
) -> Llama:
    """The model of a folder, trained on ``examples``; float32, on ``device``.

    Texts longer than the model's context are left out. ``on_step`` is told of every step when it is
    done, and may end the training. Equal arguments give equal weights on one machine.

    Raises:
        InputError: no text fits the context, or one is outside the vocabulary.
        ConfigError: the training diverged.
    """
    model = load_model(folder)
    corpus = encode_parts(examples, load_tokenizer(folder), _ALL)
    corpus = fitting(corpus, model.shape.context)
    seen = batches(corpus, recipe.batch_tokens, recipe.seed)
    steps = [(batch.tokens, len(batch.inputs)) for batch in islice(seen, recipe.steps)]
    trainer = Trainer(
        model,
        corpus,
        Recipe(
            tokens=sum(tokens for tokens, _ in steps),
            batch_tokens=recipe.batch_tokens,
            matrix_rate=recipe.matrix_rate,
            rate=recipe.rate,
            precision="bfloat16",
            device=device,
            seed=recipe.seed,
        ),
    )
    before = 0.0
    for (tokens, texts), loss in zip(steps, trainer.run(), strict=True):
        go_on = on_step(TrainStep(tokens, texts, trainer.seconds - before, loss))
        before = trainer.seconds
        if not go_on:
            break
    return model


def adapted_weights(
    folder: Path,
    examples: Sequence[Parts],
    recipe: AdaptRecipe,
    device: str,
    on_step: OnStep,
) -> dict[str, Tensor]:
    """As ``adapted``: the tensors by the names that the checkpoint has."""
    model = adapted(folder, examples, recipe, device=device, on_step=on_step)
    return {name: weight.detach() for name, weight in model.named_parameters()}


def adapt_model(
    folder: Path,
    examples: Sequence[Parts],
    recipe: AdaptRecipe,
    out: Path,
    *,
    device: str = "cpu",
    on_step: OnStep = lambda step: True,
) -> Llama:
    """Train a model further and write it to ``out`` (Hugging Face layout, bfloat16); errors as
    above.
    """
    model = adapted(folder, examples, recipe, device=device, on_step=on_step)
    out.mkdir(parents=True, exist_ok=True)
    save_tokenizer(load_tokenizer(folder), out, model.shape.context)
    save_model(model.cpu(), out)
    return model
