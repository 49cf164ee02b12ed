"""Graded samples → revision examples: earlier attempts in context, a right solution to be said.

The parallel-sampling recipe (Snell et al. 2024, arXiv 2408.03314, section 6.1 and appendix): each
right sample is paired with 0 to ``most`` wrong ones of its problem; the last of them is the wrong
one nearest to it by edit distance, so that there is something to learn from it. The ablation is
``pairing="random"``. A model that has only seen wrong attempts spoils right ones (38 % of them, in
that paper): with ``keep`` a share of the examples ends in a right attempt, to be said again.

The multi-turn recipe (RISE, Qu et al. 2024, arXiv 2407.18219) takes chains that a reviser wrote:
each state that it came to is followed by the right answer (``turn_examples``). RISE weighs targets
by exp(reward / τ); here all targets are right and weigh the same, which is its limit for small τ.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from rapidfuzz.distance import Levenshtein

from mull.labels.samples import Sample
from mull.labels.steps import distinct
from mull.rng import derive
from mull.training.data import Example
from mull.types import Attempt, Branch

Pairing = Literal["nearest", "random"]


def revision_examples(
    samples: Sequence[Sample],
    *,
    pairing: Pairing = "nearest",
    most: int = 4,
    per_problem: int | None = None,
    keep: float = 0.0,
    seed: int = 0,
) -> Iterator[Example]:
    """Examples from the samples of one problem, one a distinct right solution.

    In a share ``keep`` of them the last attempt in context is that right solution itself.

    The number of wrong attempts is drawn from 0 to ``most`` (at most as many as there are), so the
    model learns its first attempt too. ``per_problem`` bounds the examples, drawn at random.
    """
    known = distinct(samples)
    right = [s for s in known if s.correct]
    wrong = [s for s in known if s.correct is False]
    if not right:
        return
    if not 0.0 <= keep <= 1.0:
        raise ValueError(f"keep must lie in 0..1, not {keep}")
    rng = random.Random(derive(seed, "revision", right[0].problem.id))
    if per_problem is not None and len(right) > per_problem:
        right = rng.sample(right, per_problem)
    for target in right:
        if keep and rng.random() < keep:
            before = rng.sample(wrong, rng.randint(0, min(most - 1, len(wrong))))
            yield _example(target, [*before, target])
            continue
        count = rng.randint(0, min(most, len(wrong)))
        yield _example(target, _attempts(target, wrong, count, pairing, rng))


def _attempts(
    target: Sample, wrong: Sequence[Sample], count: int, pairing: Pairing, rng: random.Random
) -> list[Sample]:
    if count == 0:
        return []
    if pairing == "random":
        return rng.sample(list(wrong), count)
    nearest = min(wrong, key=lambda s: (Levenshtein.distance(s.text, target.text), s.index))
    others = [s for s in wrong if s is not nearest]
    return [*rng.sample(others, count - 1), nearest]


def turn_examples(
    chains: Sequence[Sequence[Sample]],
    *,
    best: Sample | None = None,
    most: int = 4,
    per_problem: int | None = None,
    seed: int = 0,
) -> Iterator[Example]:
    """Examples from chains of one problem's attempts: after each turn the right answer is said.

    Nothing behind a chain's first right attempt is read, and that attempt is what is to be said
    from the first turn on. A chain that never comes right is continued by ``best``, a right attempt
    from elsewhere, or left out without one. An example shows the last ``most`` attempts before it,
    as a strategy with that ``history`` does. ``per_problem`` bounds the examples, drawn at random.
    """
    found: dict[Example, None] = {}
    for chain in chains:
        ends = next((at for at, s in enumerate(chain) if s.correct), len(chain))
        target = chain[ends] if ends < len(chain) else best
        if target is not None:
            for end in range(ends + 1):
                found.setdefault(_example(target, chain[max(0, end - most) : end]))
    examples = list(found)
    if per_problem is not None and len(examples) > per_problem:
        rng = random.Random(derive(seed, "turns", chains[0][0].problem.id))
        examples = rng.sample(examples, per_problem)
    yield from examples


def likeliest(samples: Iterable[Sample]) -> Sample | None:
    """The right attempt that the model itself finds likeliest; ``None`` where none is right."""
    right = [s for s in samples if s.correct]
    known = [s for s in right if not math.isnan(s.mean_logprob)]
    return max(known, key=lambda s: s.mean_logprob, default=right[0] if right else None)


def _example(target: Sample, attempts: Sequence[Sample]) -> Example:
    """What the model reads is what the driver would show it, ``Branch.prompt``."""
    root = Branch.root(target.problem)
    history = tuple(Attempt(sample.text) for sample in attempts)
    prompt = Branch(root.problem, root.view, (), history).prompt
    return Example(prompt.plain, target.text, target.ids)
