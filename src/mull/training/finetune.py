"""A policy and more examples → the same policy, trained further: revision models, other surfaces.

The loss is on the solutions alone. Of a revision model the validation loss is no good guide to
when to stop (Snell et al. 2024, appendix: it is best slightly after the loss has begun to rise), so
training takes its tokens to the end and the validation losses are recorded beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mull.engines.torch.load import revision
from mull.errors import ConfigError
from mull.training.data import Example, encode, fitting
from mull.training.journal import OnProgress
from mull.training.loop import Trainer
from mull.training.model import Llama, load_plain
from mull.training.options import TrainingOptions
from mull.training.tokenizer import load_tokenizer
from mull.training.trained import Origin, Trained
from mull.training.watch import Watch, fitted_watched

_ALL: Final = 1 << 62


@dataclass(frozen=True)
class FineTune(TrainingOptions):
    """A policy to train further.

    ``base`` is its folder, ``context`` the longest text in tokens that the result takes (at least
    the base's), ``checks`` how often the held-out loss is taken. The other options are those of
    ``TrainingOptions``.
    """

    base: Path
    context: int = 1024
    checks: int = 20

    def _check(self) -> None:
        if self.checks < 1:
            raise ConfigError(f"train: checks must be at least 1, not {self.checks}")


@dataclass(frozen=True)
class FineTuned(Trained):
    """``validation`` is the held-out loss after each check, nats a token."""

    validation: tuple[float, ...] = ()


def fine_tune(
    config: FineTune,
    examples: Sequence[Example],
    validation: Sequence[Example],
    folder: Path,
    *,
    on_progress: OnProgress = lambda progress: None,
    origin: Origin | None = None,
) -> FineTuned:
    """Train a policy further and write it to ``folder`` (Hugging Face layout, bfloat16).

    Examples longer than the context are left out, as are texts outside the vocabulary (what a
    model said need not read back as its own tokens).

    Raises:
        InputError: no example is left.
        ConfigError: the base is a model of grids or has a longer context, or the training diverged.
        ModelLoadError: the folder's checkpoint is another training's.
    """
    config.set_threads()
    base = load_plain(config.base)
    tokenizer = load_tokenizer(config.base)
    corpus = fitting(encode(examples, tokenizer, _ALL, drop_unknown=True), config.context)
    held_out = fitting(encode(validation, tokenizer, _ALL, drop_unknown=True), config.context)
    model = Llama(base.shape.with_context(config.context))
    model.load_state_dict(base.state_dict())
    trainer = Trainer(model, corpus, config.recipe(), base=revision(config.base))
    watch = Watch(held_out, config, checks=config.checks)
    with fitted_watched(trainer, folder, watch, on_progress) as final:
        losses = tuple(watch.losses)
        tuned = FineTuned.of(trainer, folder, final, config, validation=losses)
        tuned.write_model(model, tokenizer, origin)
    return tuned
