"""``mull train policy``: solutions → a policy, from scratch, in a folder that anyone can load."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mull.engines.torch.places import Marks
from mull.errors import ConfigError, ModelLoadError
from mull.training.data import Corpus, Example, encode, fitting
from mull.training.journal import OnProgress
from mull.training.loop import Trainer, fitted
from mull.training.model import Shape, policy_of, read_shape
from mull.training.options import TrainingOptions
from mull.training.tokenizer import build_tokenizer
from mull.training.trained import Origin, Trained

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
        if self.context < 2:
            raise ConfigError(f"train: context must be at least 2, not {self.context}")

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


def train_policy(
    config: TrainPolicy,
    examples: Iterable[Example],
    vocabulary: Iterable[str],
    folder: Path,
    *,
    on_progress: OnProgress = lambda progress: None,
    corpus: Corpus | None = None,
    origin: Origin | None = None,
) -> Trained:
    """Train a policy from scratch and write it to ``folder`` (Hugging Face layout, bfloat16).

    ``vocabulary`` are texts that hold every piece of the language (a few thousand examples);
    ``examples`` are read until ``config.tokens`` are there; those longer than the context are left
    out, and what is left is repeated where it is fewer.  A ``corpus`` already encoded with the same
    vocabulary is taken in their place.  ``origin`` is what card and
    record say beside the training's own facts; without one there are none.  If ``folder`` holds a
    checkpoint of the same training, it goes on from there.

    Raises:
        InputError: no example fits the context, or a text is outside the vocabulary.
        ConfigError: the training diverged.
        ModelLoadError: the folder's checkpoint is another training's.
    """
    config.set_threads()
    tokenizer = build_tokenizer(vocabulary)
    if corpus is None:
        corpus = encode(examples, tokenizer, config.tokens)
    corpus = fitting(corpus, config.context)
    model = policy_of(config.shape(tokenizer))
    model.initialise(config.seed)
    trainer = Trainer(model, corpus, config.recipe())
    with fitted(trainer, folder, on_progress=on_progress) as final:
        trained = Trained.of(trainer, folder, final, config)
        trained.write_model(model, tokenizer, origin)
    return trained


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
