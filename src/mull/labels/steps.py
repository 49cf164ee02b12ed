"""Graded samples → labelled solutions: what a reward model is trained on.

A step's label is what is known of the solution up to it:

- ``exact``: 1 while the task's process checker finds no error, 0 from the first one on;
- ``soft``: the share of rollouts from there that come out right (Math-Shepherd's soft estimate,
  Wang et al. 2023, arXiv 2312.08935; the recipe of Snell et al. 2024, arXiv 2408.03314);
- ``hard``: 1 if any of those rollouts comes out right, else 0;
- ``search``: 1 up to the first step without a right rollout, 0 from it on, found by bisection
  (OmegaPRM, Luo et al. 2024, arXiv 2406.06592): log2(steps) rollouts instead of one a step;
- ``outcome``: the solution's own grade on its last step alone (an outcome reward model).

A step of which nothing is known has no label (NaN): none of its rollouts came back, the bisection
could not pass it, or the solution has no grade. A solution without any label is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Literal

from mull.engines.base import Engine
from mull.errors import EngineError, UsageError
from mull.labels.known import Known, place
from mull.labels.rollouts import prefixes, values
from mull.labels.samples import Sample
from mull.rng import derive
from mull.tasks.base import ProcessTask, Task
from mull.training.data import Labelled
from mull.types import Attempt, Branch, Sampling, Step, StopReason, Usage

Kind = Literal["exact", "soft", "hard", "search", "outcome"]
KINDS: tuple[Kind, ...] = ("exact", "soft", "hard", "search", "outcome")
ROLLOUTS = 8
"""Rollouts a step where nothing else is said."""


def split(text: str, separator: str = "\n") -> list[str]:
    """The steps of a text, separators included; they join to the text.

    >>> split("a\\nb")
    ['a\\n', 'b']
    """
    steps = [piece + separator for piece in text.split(separator)]
    steps[-1] = steps[-1].removesuffix(separator)
    return steps if steps[-1] else steps[:-1]


def branch_of(sample: Sample, separator: str = "\n") -> Branch:
    """A sample as a branch of steps; its key is the sample's index.

    A record does not say which token ends a step: each step is given its share of the sample's
    tokens by its characters, none where the engine gave none.
    """
    texts = split(sample.text, separator)
    made, size = len(sample.ids or ()), max(1, len(sample.text))
    ends = [0, *(round(made * end / size) for end in accumulate(map(len, texts)))]
    stops = [StopReason.STEP] * (len(texts) - 1) + [sample.stop]
    steps = [
        Step(text, stop, tokens=end - begin)
        for text, stop, begin, end in zip(texts, stops, ends, ends[1:], strict=False)
    ]
    root = Branch.root(sample.problem)
    return replace(root, key=(sample.index,), history=sample.history, steps=tuple(steps))


def distinct(samples: Iterable[Sample], answered: bool = True) -> list[Sample]:
    """One sample of each text and history, without unanswered ones, which teach a PRM nothing.

    (Snell et al. 2024, appendix: solutions without a final answer hurt the PRM.)
    """
    seen: dict[tuple[str, tuple[Attempt, ...], str], Sample] = {}
    for sample in samples:
        if sample.text and (sample.answer is not None or not answered):
            seen.setdefault((sample.problem.id, sample.history, sample.text), sample)
    return list(seen.values())


def check_rule(kind: Kind, rollouts: int | None = None, share: float | None = None) -> None:
    """``UsageError`` for a rule that there is not, and for what says nothing to it."""
    if kind not in KINDS:
        raise UsageError(f"labels {kind!r}: expected one of {', '.join(KINDS)}")
    if rollouts is not None and kind in ("exact", "outcome"):
        raise UsageError(f"rollouts={rollouts}: labels={kind} makes none; leave it out")
    if share is not None and kind not in ("soft", "hard"):
        raise UsageError(f"share={share:g}: labels={kind} takes all samples; leave it out")
    if share is not None and not 0.0 <= share <= 1.0:
        raise UsageError(f"share must lie in 0..1, not {share}")


@dataclass
class Labeller:
    """Labels samples by one rule; rollouts of equal prefixes are paid once.

    ``engine`` is the policy (needed for ``soft``, ``hard`` and ``search``, which make ``rollouts``
    of a prefix, ``ROLLOUTS`` by default). Under ``soft`` and ``hard`` only a ``share`` of the
    samples (default: all), drawn by a hash, has its steps rolled out; the others are labelled by
    their grade at the end alone. What the rollouts came to is kept in ``folder``, if there is one,
    until ``forget``; see ``Known`` for the errors of a folder that holds others.
    """

    kind: Kind
    task: Task
    engine: Engine | None = None
    rollouts: int | None = None
    sampling: Sampling = Sampling()
    seed: int = 0
    share: float | None = None
    folder: Path | None = None
    _known: Known = field(init=False)

    def __post_init__(self) -> None:
        check_rule(self.kind, self.rollouts, self.share)
        if self.kind == "exact" and not isinstance(self.task, ProcessTask):
            raise UsageError(
                f"labels=exact needs a task with a process checker, and {self.task.name} has none: "
                "use soft"
            )
        if self.kind in ("soft", "hard", "search") and self.engine is None:
            raise UsageError(f"labels={self.kind} needs the policy's engine for its rollouts")
        depends = {
            "task": self.task.name,
            "until": self.task.until,
            "policy": self.engine.info.identity if self.engine else None,
            "rollouts": self._rollouts,
            "sampling": self.sampling,
            "seed": self.seed,
        }
        self._known = Known(depends, self.folder if self.engine else None)

    async def label(self, samples: Sequence[Sample]) -> list[Labelled]:
        """The samples that have a label, with their labels, in order.

        Raises ``EngineError`` where no rollout at all came back.
        """
        if self.kind == "search":
            labels = await self._searched(samples)
        else:
            if self.kind in ("soft", "hard"):
                chosen = [s for s in samples if self._rolled(s)]
                await self._roll([p for s in chosen for p in self._prefixes(s)[:-1]])
            labels = [self._labels(sample) for sample in samples]
        if len(self._known) and self._known.unknown == len(self._known):
            raise EngineError(
                f"labels={self.kind}: no rollout of {len(self._known)} prefixes came back; "
                "expected the policy's engine to answer: see to it and begin again"
            )
        return [
            self._labelled(sample, own)
            for sample, own in zip(samples, labels, strict=True)
            if not all(map(math.isnan, own))
        ]

    @property
    def usage(self) -> Usage:
        """What the rollouts cost so far."""
        return self._known.usage

    def forget(self) -> None:
        """Remove what the folder holds of the rollouts."""
        self._known.forget()

    @property
    def facts(self) -> dict[str, float] | None:
        """What the labels were made of, for a record; ``None`` where no rollouts are made."""
        if self.kind in ("exact", "outcome"):
            return None
        return {
            "rollouts": self._rollouts,
            "share": 1.0 if self.share is None else self.share,
            "tokens": self.usage.generated,
            "prefixes": len(self._known),
            "unknown": self._known.unknown,
        }

    def _labels(self, sample: Sample) -> list[float]:
        steps = len(split(sample.text, self._separator))
        own = math.nan if sample.correct is None else float(sample.correct)
        if self.kind == "outcome" or (self.kind != "exact" and not self._rolled(sample)):
            return [math.nan] * (steps - 1) + [own]
        if self.kind == "exact":
            task = self.task
            wrong = (
                task.first_error(sample.problem, sample.text)
                if isinstance(task, ProcessTask)
                else None
            )
            labels = [float(wrong is None or at < wrong) for at in range(steps)]
            return [*labels[:-1], own if labels[-1] else 0.0]
        means = [self._known[p] for p in self._prefixes(sample)[:-1]]
        if self.kind == "hard":
            means = [mean if math.isnan(mean) else float(mean > 0) for mean in means]
        return [*means, own]

    async def _searched(self, samples: Sequence[Sample]) -> list[list[float]]:
        """Bisect all samples side by side: a round asks one prefix of each that is still open.

        A prefix that no rollout came back of ends its sample's search: between the steps known to
        be good and those known to be bad there are no labels.
        """
        depths = [len(self._prefixes(sample)) for sample in samples]
        # A right solution has no first error to look for, and one without a grade no known end.
        bounds = [
            [depth, depth] if s.correct else [0, depth - 1 if s.correct is False else depth]
            for s, depth in zip(samples, depths, strict=True)
        ]
        open_ = {at for at, sample in enumerate(samples) if sample.correct is False}
        while open_ := {at for at in open_ if bounds[at][0] < bounds[at][1]}:
            middles = {at: sum(bounds[at]) // 2 for at in open_}
            asked = {at: self._prefixes(samples[at])[middle] for at, middle in middles.items()}
            await self._roll(list(asked.values()))
            for at, middle in middles.items():
                value = self._known[asked[at]]
                if math.isnan(value):
                    open_.discard(at)
                elif value > 0:
                    bounds[at][0] = middle + 1
                else:
                    bounds[at][1] = middle
        return [
            [1.0] * low + [math.nan] * (high - low) + [0.0] * (depth - high)
            for (low, high), depth in zip(bounds, depths, strict=True)
        ]

    def _rolled(self, sample: Sample) -> bool:
        draw = derive(self.seed, "rolled", sample.problem.id, sample.index)
        return draw % 1_000_000 < (1.0 if self.share is None else self.share) * 1_000_000

    async def _roll(self, branches: Sequence[Branch]) -> None:
        """Know the value of every branch."""
        new = {place(branch): branch for branch in branches if branch not in self._known}
        if not new or self.engine is None:
            return
        found = values(
            new.values(),
            self.engine,
            self.task,
            rollouts=self._rollouts,
            sampling=self.sampling,
            seed=self.seed,
        )
        try:
            async for value in found:
                self._known.note(value)
        finally:
            self._known.save()

    @property
    def _rollouts(self) -> int:
        return ROLLOUTS if self.rollouts is None else self.rollouts

    def _prefixes(self, sample: Sample) -> list[Branch]:
        return list(prefixes(branch_of(sample, self._separator)))

    @property
    def _separator(self) -> str:
        return self.task.until.separator

    def _labelled(self, sample: Sample, labels: Sequence[float]) -> Labelled:
        prompt = branch_of(sample, self._separator).prompt.plain
        return Labelled(prompt, sample.text, tuple(labels), self._separator, sample.ids)
