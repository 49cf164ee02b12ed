"""Labelled solutions → a reward model: a policy's trunk with a value head, read at step ends.

A process reward model has a label at the end of every step, an outcome reward model at the end of
the solution; both are the same weights and the same loss. Labels are probabilities: exact verdicts
(0 or 1) or shares of rollouts that came out right (Math-Shepherd, Wang et al. 2023, arXiv
2312.08935; Snell et al. 2024, arXiv 2408.03314). The loss is the cross-entropy of the soft label.

Beside the hidden state the head reads how likely the trunk finds the solution so far. A policy
knows more of what is right than a head that starts from nothing, and keeps it so: the gradient of
the values falls on the probabilities of the words, as in reward models that are likelihoods alone
(Yuan et al. 2024, arXiv 2412.01981).

Shapes: B rows, T tokens, D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mull.engines.torch.load import revision
from mull.errors import ConfigError, InputError
from mull.training.data import (
    IGNORED,
    Batch,
    Corpus,
    Labelled,
    collate,
    corpus_of,
    encoded,
    fitting,
)
from mull.training.journal import OnProgress
from mull.training.loop import Trainer
from mull.training.model import Llama, Shape, load_as, load_plain
from mull.training.options import TrainingOptions
from mull.training.policy import CONTEXT, TrainPolicy, check_size, size_of
from mull.training.tokenizer import load_tokenizer
from mull.training.trained import Origin, Trained
from mull.training.watch import Watch, fitted_watched

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CALIBRATION: Final = 512
"""Labelled solutions whose likelihood the head starts from."""
# From a policy the steps must be small: larger ones undo what its likelihood tells the head.
_RATES: Final = {"s": (5e-4, 2e-4), "m": (2.5e-4, 1e-4), "l": (2.5e-4, 1e-4)}


class ValueHead(nn.Linear):
    """The logit of a value, of a hidden state and of the log-probability of what led to it.

    ``logprob_weight`` is what a nat of the solution's summed log-probability weighs; 0 reads the
    hidden state alone, as do checkpoints without this weight.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, 1)
        self.logprob_weight = nn.Parameter(torch.zeros(1))
        self.clear()

    @torch.no_grad()
    def clear(self) -> None:
        """Say one half to everything."""
        for weight in self.parameters():
            weight.zero_()

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        state_dict.setdefault(f"{prefix}logprob_weight", torch.zeros(1))
        super()._load_from_state_dict(state_dict, prefix, *rest)


class RewardModel(Llama):
    """A Llama with a value head: one logit a token."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.value_head = ValueHead(shape.width)

    def initialise(self, seed: int) -> None:
        """Draw the trunk anew; the head says one half to everything."""
        super().initialise(seed)
        self.value_head.clear()

    def values(self, ids: Tensor, targets: Tensor | None) -> Tensor:
        """Tokens [B, T] and the next ones, as in a batch → logits [B, T] that all is right so far.

        ``targets`` are ``IGNORED`` where the next token is not of the solution; without them the
        hidden state alone is read.
        """
        hidden = self.hidden(ids)
        logits: Tensor = self.value_head(hidden).squeeze(-1).float()
        if targets is None:
            return logits
        return logits + self.value_head.logprob_weight * self.likelihood(hidden, targets)

    def likelihood(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Log-probability [B, T] of the solution up to and with each token, nats."""
        said = targets != IGNORED
        nats = F.cross_entropy(self.logits(hidden[said]).float(), targets[said], reduction="none")
        each = torch.zeros(targets.shape, device=hidden.device)
        each[said] = -nats
        return F.pad(each.cumsum(1)[:, :-1], (1, 0))

    def calibrate(self, batch: Batch) -> None:
        """Start the head from the best that the likelihood alone says of labelled solutions."""
        ids, targets, labels = _tensors(batch, self.value_head.weight.device)
        known = ~labels.isnan()
        with torch.no_grad():
            likely = self.likelihood(self.hidden(ids), targets)[known]
        given = [self.value_head.bias, self.value_head.logprob_weight]
        fit = torch.optim.LBFGS(given, max_iter=50, line_search_fn="strong_wolfe")

        def loss() -> float:
            fit.zero_grad()
            bias, weight = given
            out = F.binary_cross_entropy_with_logits(bias + weight * likely, labels[known])
            torch.autograd.backward(out)
            return out.item()

        fit.step(loss)  # type: ignore[no-untyped-call]
        fit.zero_grad()  # or the first step of a training would add it to its own

    @classmethod
    def of_policy(cls, folder: Path, context: int | None = None) -> RewardModel:
        """The trunk of a policy with a head that says one half to everything.

        ``context`` is the longest text in tokens (default: the policy's). Raises ``ConfigError``
        for a model of grids.
        """
        policy = load_plain(folder)
        model = cls(policy.shape if context is None else policy.shape.with_context(context))
        model.model.load_state_dict(policy.model.state_dict())
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


@dataclass(frozen=True)
class ValueLoss:
    """Mean cross-entropy of the value head against the labels, nats a label.

    Solutions that end in the middle of a batch weigh by their labels: every label counts once.
    Without ``logprobs`` the head reads the hidden state alone, and goes on to.
    """

    logprobs: bool = True

    def __call__(self, model: Llama, batch: Batch) -> Tensor:
        if not isinstance(model, RewardModel) or batch.labels is None:
            raise TypeError("a value loss needs a reward model and labelled examples")
        ids, targets, labels = _tensors(batch, model.value_head.weight.device)
        known = ~labels.isnan()
        logits = model.values(ids, targets if self.logprobs else None)[known]
        return F.binary_cross_entropy_with_logits(logits, labels[known])


def _tensors(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, targets and labels [B, T] of a labelled batch."""
    arrays = (batch.inputs, batch.targets, batch.labels)
    inputs, targets, labels = (torch.from_numpy(array).to(device) for array in arrays)
    return inputs, targets, labels


@dataclass(frozen=True)
class TrainReward(TrainingOptions):
    """A reward model to train.

    ``base`` is the policy's folder whose weights it starts from (it may be larger than the policy
    it will judge), and fixes its size; without one it starts from nothing in the given ``size``
    (default: ``s``). ``context`` is the longest text in tokens (default: the base's). Rates that
    are not given are small ones for the base's size (for another shape those of the largest), from
    nothing a policy's. ``tokens`` is the most that is seen, examples repeated where they are fewer;
    training ends early once the validation loss has not fallen for ``patience`` checks, ``checks``
    of them to a training, and the best weights are kept. ``logprobs`` is that of
    ``ValueLoss``. The other options are those of ``TrainingOptions``.
    """

    base: Path | None = None
    size: str | None = None
    context: int | None = None
    patience: int = 4
    checks: int = 20
    logprobs: bool = True

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

    @property
    def good_rates(self) -> tuple[float, float]:
        if self.base is None:
            return TrainPolicy(size=self.size or "s").good_rates
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
    on_progress: OnProgress = lambda progress: None,
    origin: Origin | None = None,
) -> TrainedReward:
    """Train a reward model and write it to ``folder`` (Hugging Face layout, bfloat16).

    ``validation`` are solutions to other problems. Texts longer than the context are left out.

    Raises:
        InputError: labels do not fit their solutions, or no solution is left.
        ConfigError: the base is a model of grids or has a longer context, or the training diverged.
        ModelLoadError: the folder's checkpoint is another training's.
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
    corpus = fitting(encode_labelled(examples, tokenizer), model.shape.context)
    held_out = fitting(encode_labelled(validation, tokenizer), model.shape.context)
    loss = ValueLoss(config.logprobs)
    if config.base is not None and config.logprobs:
        rows = np.random.default_rng(config.seed).permutation(len(corpus))[:CALIBRATION]
        model.calibrate(collate(corpus, rows))
    base = None if config.base is None else revision(config.base)
    trainer = Trainer(model, corpus, config.recipe(), loss, base)
    watch = Watch(held_out, config, checks=config.checks, patience=config.patience, objective=loss)
    with fitted_watched(trainer, folder, watch, on_progress) as final:
        losses = tuple(watch.losses)
        trained = TrainedReward.of(
            trainer, folder, final, config, best=watch.best, validation=losses
        )
        trained.write_model(model, tokenizer, origin)
    return trained
