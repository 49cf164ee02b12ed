"""The loop under an adapter: texts → gradients → adapter, continued exactly after any kill.

The loss of a step is the mean over all tokens that are to be said in its texts, however they are
cut into forward passes; tokens that the model is given weigh nothing. Texts are padded on the
right, behind every real token, so causal attention needs no mask and padding changes no number.
"""

from __future__ import annotations

import inspect
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from mull.errors import ConfigError, InputError
from mull.rng import derive
from mull.training.data import IGNORED
from mull.training.dialogue import Encoded, Encoder
from mull.training.gradient import clip
from mull.training.lora_options import TrainLora
from mull.training.schedule import schedule
from mull.training.stream import Stream

WINDOW: Final = 1000
"""Texts over which those that are too long are counted."""
TOO_MANY: Final = 0.9


def nll(model: Any, rows: Sequence[Encoded], device: str) -> Tensor:
    """Summed negative log-likelihood of all that is to be said in some texts, nats.

    Logits are computed where something is to be said only: a vocabulary of 150,000 makes them the
    largest thing in memory.
    """
    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    targets = torch.full((len(rows), width), IGNORED)
    for row, text in enumerate(rows):
        ids[row, : len(text)] = torch.tensor(text.ids)
        targets[row, : len(text)] = torch.where(
            torch.tensor(text.said), ids[row, : len(text)], IGNORED
        )
    ids, targets = ids[:, :-1].to(device), targets[:, 1:]
    columns = (targets != IGNORED).any(0).nonzero().flatten()
    targets = targets[:, columns].to(device)
    options = {"logits_to_keep": columns.to(device)} if _keeps(model) else {}
    logits = model(input_ids=ids, use_cache=False, **options).logits
    if not options:
        logits = logits[:, columns.to(device)]
    return F.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )


@torch.no_grad()
def mean_nll(model: Any, rows: Sequence[Encoded], device: str, narrow: bool) -> float:
    """The mean of ``nll`` over all tokens to be said, nats, one text at a time, without dropout."""
    training = model.training
    model.eval()
    total, count = 0.0, 0
    for text in rows:
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=narrow):
            total += float(nll(model, [text], device))
        count += text.spoken
    model.train(training)
    return total / max(1, count)


def _keeps(model: Any) -> bool:
    """Whether the model computes logits of chosen positions alone."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "logits_to_keep" in inspect.signature(inner.forward).parameters


class Tuner:
    """A model with an adapter on its way through a stream.

    ``step`` counts updates, ``position`` texts drawn from the stream, ``too_long`` those of them
    that were left out, ``seen`` the tokens of the others, ``seconds`` the time of the updates.
    ``identity`` is what two trainings must share beside the stream to be one.
    """

    def __init__(
        self,
        model: Any,
        stream: Stream,
        encoder: Encoder,
        config: TrainLora,
        longest: int,
        identity: Mapping[str, Any],
    ) -> None:
        self.model, self.stream, self.encoder = model, stream, encoder
        self.config, self.longest = config, longest
        self.factor = schedule(config.schedule, config.warmup, config.cycles)
        self.weights = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(
            self.weights.values(), lr=config.rate, weight_decay=config.weight_decay
        )
        self.identity = {**identity, "stream": stream.identity}
        self.step = self.position = self.too_long = self.seen = 0
        self.seconds = 0.0
        self._recent: deque[bool] = deque(maxlen=WINDOW)

    @property
    def lr(self) -> float:
        """The rate of the step that comes next: the schedule in the step's middle, never zero."""
        return self.config.rate * self.factor((self.step + 0.5) / self.config.steps)

    @property
    def rate(self) -> float:
        """The rate of the step that was made last."""
        return float(self.optimizer.param_groups[0]["lr"])

    @property
    def done(self) -> bool:
        """Whether all updates are made."""
        return self.step >= self.config.steps

    def run(self) -> Iterator[float]:
        """Train to the end, yielding each step's loss, nats a token.

        Raises:
            ConfigError: the training diverged.
            InputError: more than nine tenths of the last thousand texts were too long.
        """
        self.model.train()
        source = self._fitting()
        while not self.done:
            began = time.perf_counter()
            value = self._update([next(source) for _ in range(self.config.batch)])
            self.seconds += time.perf_counter() - began
            yield value

    def _fitting(self) -> Iterator[Encoded]:
        for text in self.stream(self.position):
            encoded = self.encoder(text)
            self.position += 1
            fits = len(encoded) <= self.longest
            self._recent.append(not fits)
            if fits:
                yield encoded
                continue
            self.too_long += 1
            if len(self._recent) == WINDOW and sum(self._recent) > TOO_MANY * WINDOW:
                raise InputError(
                    f"{sum(self._recent)} of the last {WINDOW} training texts are longer than "
                    f"{self.longest} tokens; expected at most nine in ten: raise max_length, or "
                    "make the texts shorter"
                )
        raise InputError("the stream of training texts ended; expected one without end")

    def _update(self, texts: Sequence[Encoded]) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr
        spoken = sum(text.spoken for text in texts)
        total = 0.0
        device = torch.device(self.config.device)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            # Dropout is a function of the step, so that a resumed training drops the same.
            torch.manual_seed(derive(self.config.seed, "step", self.step))
            for start in range(0, len(texts), self.config.micro):
                rows = texts[start : start + self.config.micro]
                with torch.autocast(device.type, torch.bfloat16, enabled=self.config.narrow):
                    loss = nll(self.model, rows, self.config.device) / spoken
                loss.backward()  # type: ignore[no-untyped-call]
                total += float(loss.detach())
        clip(self.weights.values(), self.config.clip, total, "rate")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.seen += sum(map(len, texts))
        return total

    def state(self) -> dict[str, Any]:
        """Counters, the adapter's weights, and the optimizer's own."""
        return {
            "step": self.step,
            "position": self.position,
            "too_long": self.too_long,
            "recent": [int(late) for late in self._recent],
            "seen": self.seen,
            "seconds": self.seconds,
            "model": self.weights,
            "optimizers": [self.optimizer.state_dict()["state"]],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a state that ``state`` gave; ``ConfigError`` for that of another adapter."""
        if set(state["model"]) != set(self.weights):
            raise ConfigError("another adapter: its weights have other names")
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(state["model"][name])
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state["optimizers"][0], "param_groups": groups})
        self.step, self.position = state["step"], state["position"]
        self.too_long, self.seen = state["too_long"], state["seen"]
        self.seconds = state["seconds"]
        self._recent.extend(bool(late) for late in state["recent"])
