"""Labelled solutions → a reward model: a policy's trunk with a value head, read at step ends.

A process reward model has a label at the end of every step, an outcome reward model at the end of
the solution; both are the same weights and the same loss. Labels are probabilities: exact verdicts
(0 or 1) or shares of rollouts that came out right (Math-Shepherd, Wang et al. 2023, arXiv
2312.08935; Snell et al. 2024, arXiv 2408.03314). The loss is the cross-entropy of the soft label.

Shapes: B rows, T tokens, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mull.errors import ConfigError, InputError
from mull.training.data import IGNORED, Batch, Corpus, Labelled, corpus_of, encoded, fitting
from mull.training.loop import Progress, Trainer
from mull.training.model import Llama, Shape, load_as, load_model, save_model
from mull.training.options import TrainingOptions
from mull.training.policy import CONTEXT, Trained, TrainPolicy, check_size, size_of
from mull.training.tokenizer import load_tokenizer, save_tokenizer
from mull.training.watch import Watch, fit_watched

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Fine-tuning from a policy wants smaller steps than training from nothing.
_RATES: Final = {"s": (1e-3, 5e-4), "m": (1e-3, 5e-4), "l": (7e-4, 3e-4)}


class RewardModel(Llama):
    """A Llama with a value head: one logit a token."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.value_head = nn.Linear(shape.width, 1)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)

    def values(self, ids: Tensor) -> Tensor:
        """[B, T] → logits [B, T] that the solution so far is right."""
        out: Tensor = self.value_head(self.hidden(ids)).squeeze(-1)
        return out

    @classmethod
    def of_policy(cls, folder: Path, context: int | None = None) -> RewardModel:
        """The trunk of a policy with a head that says one half to everything.

        ``context`` is the longest text in tokens (default: the policy's).
        """
        policy = load_model(folder)
        model = cls(policy.shape if context is None else policy.shape.with_context(context))
        model.load_state_dict(policy.state_dict(), strict=False)
        return model

    @classmethod
    def of_folder(cls, folder: Path) -> RewardModel:
        """What ``train_reward`` wrote, in float32. ``ModelLoadError`` for anything else."""
        return load_as(cls, folder)


def encode_labelled(examples: Iterable[Labelled], tokenizer: Tokenizer) -> Corpus:
    """Encode solutions with their labels at the tokens that end the steps.

    The label of the last step stands on the end token too, so that a text is valued alike with and
    without it. Texts outside the vocabulary are left out: what a model said need not read back as
    its own tokens. Raises ``InputError`` where an example has not one label a step, or a label is
    no probability, or no example is left.
    """
    rows: list[NDArray[np.uint16]] = []
    prompts: list[int] = []
    labels: list[NDArray[np.float32]] = []
    pieces = _pieces(tokenizer)
    for example, ids, prompt in encoded(examples, tokenizer, drop_unknown=True):
        ends = _step_ends([pieces[i] for i in ids[prompt:]], example.separator)
        if len(ends) != len(example.labels):
            raise InputError(
                f"a solution of {len(ends)} steps has {len(example.labels)} labels; "
                f"expected one a step: {example.solution[:80]!r}"
            )
        if not all(math.isnan(x) or 0.0 <= x <= 1.0 for x in example.labels):
            raise InputError(f"labels must lie in 0..1, not {example.labels}")
        row = np.full(len(ids), np.nan, dtype=np.float32)
        row[[prompt + end for end in ends]] = example.labels
        if example.labels:
            row[-1] = example.labels[-1]
        rows.append(np.array(ids, dtype=np.uint16))
        prompts.append(prompt)
        labels.append(row)
    return corpus_of(rows, prompts, labels)


def _pieces(tokenizer: Tokenizer) -> list[str]:
    """The text of every token; special ones have none."""
    size = tokenizer.get_vocab_size()
    special = tokenizer.get_added_tokens_decoder()
    return ["" if i in special else tokenizer.id_to_token(i) or "" for i in range(size)]


def _step_ends(pieces: Sequence[str], separator: str) -> list[int]:
    """The tokens that complete the steps of a text given in pieces; the last may be unclosed.

    >>> _step_ends(["a", "\\n", "b", ""], "\\n")
    [1, 2]
    """
    ends: list[int] = []
    text, known, last = "", 0, -1
    for position, piece in enumerate(pieces):
        text += piece
        last = position if piece else last
        if (found := text.find(separator, known)) >= 0:
            while found >= 0:
                known = found + len(separator)
                found = text.find(separator, known)
            ends.append(position)
    if known < len(text):
        ends.append(last)
    return ends


def value_loss(model: Llama, batch: Batch) -> Tensor:
    """Mean cross-entropy of the value head against the labels, nats a label.

    Solutions that end in the middle of a batch weigh by their labels: every label counts once.
    """
    return RewardLoss()(model, batch)


@dataclass(frozen=True)
class RewardLoss:
    """``value_loss``, plus ``lm_weight`` times the language-modelling loss of the right solutions.

    The second loss (nats a token that a right solution says, its last label above one half) is to
    keep what the trunk knows of writing (Yang et al. 2024, arXiv 2406.10216).
    """

    lm_weight: float = 0.0

    def __call__(self, model: Llama, batch: Batch) -> Tensor:
        if not isinstance(model, RewardModel) or batch.labels is None:
            raise TypeError("a value loss needs a reward model and labelled examples")
        device = model.value_head.weight.device
        inputs = torch.from_numpy(batch.inputs).to(device)
        labels = torch.from_numpy(batch.labels).to(device)
        known = ~labels.isnan()
        hidden = model.hidden(inputs)
        logits = model.value_head(hidden[known]).squeeze(-1)
        loss = F.binary_cross_entropy_with_logits(logits.float(), labels[known])
        if not self.lm_weight:
            return loss
        targets = torch.from_numpy(batch.targets).to(device)
        said = (targets != IGNORED) & (_last(labels) > 0.5)[:, None]
        if not said.any():
            return loss
        written = model.logits(hidden[said]).float()
        return loss + self.lm_weight * F.cross_entropy(written, targets[said])


def _last(labels: Tensor) -> Tensor:
    """The last label that is known [B] of labels [B, T]; NaN in a row without one."""
    places = torch.arange(1, labels.shape[1] + 1, device=labels.device)
    last = (~labels.isnan() * places).argmax(1, keepdim=True)
    return labels.gather(1, last).squeeze(1)


@torch.no_grad()
def read_values(
    model: RewardModel, corpus: Corpus, batch_tokens: int = 8192
) -> list[NDArray[np.float32]]:
    """The head's probabilities at every labelled token, a row an example, in order."""
    out: list[NDArray[np.float32]] = [np.zeros(0, np.float32)] * len(corpus)
    order = np.argsort(corpus.lengths, kind="stable")
    at = 0
    while at < len(order):
        longest, end = 0, at
        while end < len(order):
            longest = max(longest, int(corpus.lengths[order[end]]))
            if end > at and longest * (end + 1 - at) > batch_tokens:
                break
            end += 1
        rows = order[at:end]
        ids = np.zeros((len(rows), longest), dtype=np.int64)
        for line, row in enumerate(rows):
            span = corpus.ids[corpus.starts[row] : corpus.starts[row + 1]]
            ids[line, : len(span)] = span
        values = torch.sigmoid(model.values(torch.from_numpy(ids)).float()).numpy()
        for line, row in enumerate(rows):
            labels = corpus.labels
            if labels is None:
                raise TypeError("examples without labels have no places to read")
            known = np.isfinite(labels[corpus.starts[row] : corpus.starts[row + 1]])
            out[row] = values[line, : len(known)][known]
        at = end
    return out


@dataclass(frozen=True)
class TrainReward(TrainingOptions):
    """A reward model to train.

    ``base`` is the policy's folder whose weights it starts from (it may be larger than the policy
    it will judge), and fixes its size; without one it starts from nothing in the given ``size``
    (default: ``s``). ``context`` is the longest text in tokens (default: the base's). Rates that
    are not given are those of the size, for a base of another shape those of the largest, which are
    the smallest. ``tokens`` is the most that is seen, examples repeated where they are fewer;
    training ends early once the validation loss has not fallen for ``patience`` checks, ``checks``
    of them to a training, and the best weights are kept. ``lm_weight`` is that of ``RewardLoss``.
    The other options are those of ``TrainingOptions``.
    """

    base: Path | None = None
    size: str | None = None
    context: int | None = None
    patience: int = 4
    checks: int = 20
    lm_weight: float = 0.0

    def _check(self) -> None:
        if self.base is not None and self.size is not None:
            raise ConfigError(
                f"train: size {self.size}: the size is that of the base {self.base.name}; leave "
                "out the one or the other"
            )
        if self.size is not None:
            check_size(self.size)
        for name in ("patience", "checks", "context"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"train: {name} must be at least 1, not {value}")
        if not 0.0 <= self.lm_weight < math.inf:
            raise ConfigError(f"train: lm_weight must be 0 or more, not {self.lm_weight}")

    @property
    def good_rates(self) -> tuple[float, float]:
        return _RATES[self.in_size or "l"]

    @property
    def in_size(self) -> str | None:
        """The size of what is trained; ``None`` for a base of a shape of its own."""
        return self.size or "s" if self.base is None else size_of(self.base)

    def facts(self) -> dict[str, object]:
        """As ``TrainingOptions.facts``, with the size that the base has."""
        return {**super().facts(), "size": self.in_size}


@dataclass(frozen=True)
class TrainedReward(Trained):
    """``validation`` is the held-out loss after each check, nats a label; ``best`` the smallest."""

    best: float = math.nan
    validation: tuple[float, ...] = ()


def train_reward(
    config: TrainReward,
    examples: Sequence[Labelled],
    validation: Sequence[Labelled],
    tokenizer_folder: Path,
    folder: Path,
    *,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> TrainedReward:
    """Train a reward model and write it to ``folder`` (Hugging Face layout, bfloat16).

    ``validation`` are solutions to other problems. Texts longer than the context are left out.
    Raises ``InputError`` for labels that do not fit their solutions.
    """
    config.set_threads()
    tokenizer = load_tokenizer(tokenizer_folder)
    if config.base is not None:
        model = RewardModel.of_policy(config.base, config.context)
    else:
        size, context = config.size or "s", config.context or CONTEXT
        shape = TrainPolicy(size=size, context=context).shape(tokenizer)
        model = RewardModel(shape)
        model.initialise(config.seed)
        nn.init.zeros_(model.value_head.weight)
    corpus = fitting(encode_labelled(examples, tokenizer), model.shape.context)
    held_out = fitting(encode_labelled(validation, tokenizer), model.shape.context)
    trainer = Trainer(model, corpus, config.recipe(), RewardLoss(config.lm_weight))
    watch = Watch(
        held_out, config, checks=config.checks, patience=config.patience, objective=value_loss
    )
    final = fit_watched(trainer, folder, watch, on_progress)
    save_model(model, folder)
    save_tokenizer(tokenizer, folder, model.shape.context)
    losses = tuple(watch.losses)
    return TrainedReward.of(trainer, folder, final, config, best=watch.best, validation=losses)
