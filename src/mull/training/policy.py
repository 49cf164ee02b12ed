"""``mull train policy``: solutions → a policy, from scratch, in a folder that anyone can load."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from mull.engines.torch.places import Marks
from mull.errors import ConfigError, ModelLoadError
from mull.training.data import Corpus, Example, encode
from mull.training.loop import Progress, Trainer, fit
from mull.training.model import Shape, policy_of, read_shape, save_model
from mull.training.options import TrainingOptions
from mull.training.tokenizer import build_tokenizer, save_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SIZES: Final[dict[str, dict[str, int]]] = {
    "s": {"width": 64, "layers": 4, "heads": 4, "hidden": 176},
    "m": {"width": 128, "layers": 4, "heads": 4, "hidden": 352},
    "l": {"width": 192, "layers": 6, "heads": 6, "hidden": 512},
}
# Peak rates (Muon, AdamW) by size.  Twice as much learns faster for the first million tokens and
# then stays behind: look-ups, the last thing learned, need the small steps.
_RATES: Final = {"s": (2e-3, 1e-3), "m": (2e-3, 1e-3), "l": (1e-3, 5e-4)}
CONTEXT: Final = 512


@dataclass(frozen=True)
class TrainPolicy(TrainingOptions):
    """A policy to train.

    ``size`` is ``s`` (0.2M parameters), ``m`` (0.8M) or ``l`` (2.7M), ``context`` its longest
    sequence. ``grids`` are the characters that mark a text of grids, by the names of ``Marks``: the
    model then knows rows and columns. The other options are those of ``TrainingOptions``.
    """

    size: str = "s"
    context: int = CONTEXT
    grids: Mapping[str, str] | None = None
    tokens: int = field(default=8_000_000, kw_only=True)
    batch_tokens: int = field(default=1024, kw_only=True)

    def _check(self) -> None:
        check_size(self.size)

    @property
    def good_rates(self) -> tuple[float, float]:
        return _RATES[self.size]

    def shape(self, tokenizer: Tokenizer) -> Shape:
        """The model's shape for a tokenizer."""
        marks = None
        if self.grids:
            marks = Marks(**{name: _id(tokenizer, mark) for name, mark in self.grids.items()})
        vocabulary = tokenizer.get_vocab_size()
        return Shape(vocabulary=vocabulary, context=self.context, marks=marks, **SIZES[self.size])


@dataclass(frozen=True)
class Trained:
    """What a training gave: where it is, what it took, how it ended."""

    folder: Path
    parameters: int
    tokens: int
    examples: int
    epochs: float
    seconds: float
    loss: float
    config: dict[str, object] = field(default_factory=dict)

    @classmethod
    def of(
        cls, trainer: Trainer, folder: Path, final: Progress, config: TrainingOptions, **more: Any
    ) -> Self:
        """What a trainer that is done has to say; ``more`` are a subclass's own fields."""
        return cls(
            folder=folder,
            parameters=sum(weight.numel() for weight in trainer.model.parameters()),
            tokens=trainer.seen,
            examples=len(trainer.corpus),
            epochs=trainer.seen / trainer.corpus.tokens,
            seconds=trainer.seconds,
            loss=final.loss,
            config=config.facts(),
            **more,
        )


def train_policy(
    config: TrainPolicy,
    examples: Iterable[Example],
    vocabulary: Iterable[str],
    folder: Path,
    *,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    corpus: Corpus | None = None,
) -> Trained:
    """Train a policy from scratch and write it to ``folder`` (Hugging Face layout, bfloat16).

    ``vocabulary`` are texts that hold every piece of the language (a few thousand examples);
    ``examples`` are read until ``config.tokens`` are there, fewer are repeated.  A ``corpus``
    already encoded with the same vocabulary is taken in their place.  If ``folder`` holds a
    checkpoint of the same training, it goes on from there.
    """
    config.set_threads()
    tokenizer = build_tokenizer(vocabulary)
    if corpus is None:
        corpus = encode(examples, tokenizer, config.tokens)
    model = policy_of(config.shape(tokenizer))
    model.initialise(config.seed)
    trainer = Trainer(model, corpus, config.recipe())
    final = fit(trainer, folder, on_progress=on_progress)
    save_model(model, folder)
    save_tokenizer(tokenizer, folder, config.context)
    return Trained.of(trainer, folder, final, config)


def check_size(size: str) -> None:
    """Raise ``ConfigError`` for a size that there is not."""
    if size not in SIZES:
        raise ConfigError(f"train: unknown size {size!r}: one of {', '.join(SIZES)}")


def size_of(folder: Path) -> str | None:
    """The size whose shape a folder's model has, ``None`` for another; ``ModelLoadError``."""
    try:
        shape = asdict(read_shape(folder))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ModelLoadError(f"{folder} holds no model written by mull train: {error}") from error
    return next((size for size, its in SIZES.items() if its.items() <= shape.items()), None)


def _id(tokenizer: Tokenizer, mark: str) -> int:
    id = tokenizer.token_to_id(mark)
    if id is None:
        raise ConfigError(f"train: grids: {mark!r} is no token; expected one of the vocabulary")
    return int(id)
