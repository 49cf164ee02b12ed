"""A product of experts: the sum of every view's token log-probabilities, one batch, paid once."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from tests.tasks.arc.world import random_puzzle, tiny_model
from tests.verifiers.common import branch, meter, scored, whole

from mull.budget import Purpose
from mull.engines.simulated import Echo, SimulatedEngine
from mull.engines.torch import load_torch_engine
from mull.errors import SpecError, UnsupportedError
from mull.tasks.arc.task import ArcTask
from mull.tasks.base import SAME, View
from mull.types import Branch, Problem, Prompt, ScoreRequest
from mull.verifiers.base import Verifier, check_policy
from mull.verifiers.views import COMBINE, ViewsVerifier, own_views

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.engines.torch.conftest import make_checkpoint  # noqa: E402

PROBLEM = Problem("p", Prompt.of("1+2=3\n4+5=9\n"))
MIRROR = str.maketrans("0123456789", "9876543210")
TEXTS = ("alpha1.\n", "beta2+3.\n", "cab", "4")


def render(of: Branch) -> list[ScoreRequest]:
    """Two ways to see a problem: as it is, and with every digit d called 9 - d."""
    seen = of.problem.prompt.plain
    return [
        ScoreRequest(Prompt.of(seen), of.text),
        ScoreRequest(Prompt.of(seen.translate(MIRROR)), of.text.translate(MIRROR)),
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("views") / "tiny", "qwen2")


@pytest.fixture
def engine(folder: Path) -> Iterator[Any]:
    made = load_torch_engine(folder, dtype="float32", device="cpu", memory_cap=1 << 26)
    yield made
    asyncio.run(made.aclose())


def by_hand(engine: Any, view: ScoreRequest) -> float:
    """log P(text | prompt) from one forward pass over the whole, token by token."""
    from mull.engines.torch.rows import Rows

    prompt = engine.text.prompt(view.prompt)
    ids = (*engine.text.prompt(view.prompt, view.assistant), *([engine.text.eos] * view.end))
    with torch.inference_mode():
        rows = Rows(engine.model)
        rows.reserve(1, len(ids), 0)
        places = torch.arange(len(ids))[None]
        hidden = engine.model.forward(
            torch.tensor([ids]), places, rows.keys[:, :1], rows.values[:, :1], len(ids)
        )
        logits = engine.model.logits(hidden[0]).double()
    table = logits - torch.logsumexp(logits, -1, keepdim=True)
    return sum(float(table[at - 1, ids[at]]) for at in range(len(prompt), len(ids)))


def branches(*texts: str) -> list[Branch]:
    return [branch(PROBLEM, text, key=(at,)) for at, text in enumerate(texts)]


@pytest.mark.parametrize("combine", sorted(COMBINE))
@pytest.mark.parametrize("base", [0.0, 3.0])
def test_the_score_is_what_the_logits_say(combine: str, base: float, engine: Any) -> None:
    verifier = ViewsVerifier(engine, render, combine=combine, base_log_prob=base)  # type: ignore[arg-type]
    got = scored(verifier, *branches(*TEXTS))
    how = {"sum": sum, "mean": fmean, "min": min, "max": max}[combine]
    for of, score in zip(branches(*TEXTS), got, strict=True):
        right = how([base + by_hand(engine, view) for view in render(of)])
        assert score == pytest.approx(right, abs=1e-4)


class Watched:
    """An engine that notes what it is asked to score."""

    def __init__(self, engine: Any) -> None:
        self.engine, self.asked, self.info = engine, list[int](), engine.info

    async def score(self, requests: Sequence[ScoreRequest], meter: Any) -> Any:
        self.asked.append(len(requests))
        return await self.engine.score(requests, meter)


def test_all_views_of_all_candidates_are_one_batch_and_equal_ones_are_paid_once(
    engine: Any,
) -> None:
    watched = Watched(engine)
    verifier = ViewsVerifier(watched, render)  # type: ignore[arg-type]
    gauge = meter(verifier)
    got = scored(verifier, *branches("alpha1", "beta", "alpha1"), gauge=gauge)
    assert watched.asked == [4]
    assert got[0] == got[2]
    assert gauge.samples == (0, 1, 2)
    assert gauge.usage(2).tokens == 0
    assert gauge.usage(0).tokens > 0 < gauge.usage(1).tokens
    rows = list(gauge.ledger.rows())
    assert [(purpose, done) for purpose, _, _, done in rows] == [(Purpose.VERIFIER, 3)]
    prompts = sum(len(engine.text.prompt(v.prompt, v.assistant)) for v in views("alpha1", "beta"))
    assert gauge.total.prompt == prompts
    assert gauge.total.flops > 0


def views(*texts: str) -> list[ScoreRequest]:
    return [view for of in branches(*texts) for view in render(of)]


def test_a_further_view_pays_only_above_the_base(engine: Any) -> None:
    def unequal(of: Branch) -> list[ScoreRequest]:
        return render(of)[: 1 if of.key == (0,) else 2]

    pair = branches("4", "4")
    one, two = scored(ViewsVerifier(engine, unequal), *pair)
    assert two < one, "without a base every view is a loss"
    high = ViewsVerifier(engine, unequal, base_log_prob=50.0)
    one, two = scored(high, *pair)
    assert two > one


def test_what_cannot_be_compared_has_no_score(engine: Any) -> None:
    def some(of: Branch) -> list[ScoreRequest]:
        if of.text == "none":
            return []
        if of.text == "long":
            return [*render(of)[:1], ScoreRequest(Prompt.of("1" * 300), "4")]
        return render(of)

    verifier = ViewsVerifier(engine, some)
    gauge = meter(verifier)
    got = scored(verifier, *branches("none", "4", "long", "", "alpha"), gauge=gauge)
    assert [math.isnan(score) for score in got] == [True, False, True, True, False]
    assert scored(verifier, *branches("4", "alpha")) == pytest.approx([got[1], got[4]], abs=1e-5)
    assert gauge.samples == (0, 1, 2, 3, 4)
    assert scored(verifier) == []


def test_the_end_token_counts_where_the_view_has_it(engine: Any) -> None:
    prompt = Prompt.of("1+2=")
    text = engine.text.prompt(prompt, "3")[len(engine.text.prompt(prompt)) :]

    def ended(of: Branch) -> list[ScoreRequest]:
        end = (engine.text.eos,) if of.key == (1,) else ()
        return [ScoreRequest(prompt, "3", text + end)]

    def asked(of: Branch) -> list[ScoreRequest]:
        return [ScoreRequest(prompt, "3", text, end=True)]

    open_end, whole = scored(ViewsVerifier(engine, ended), *branches("3", "3"))
    assert whole < open_end < 0
    assert engine.batch.is_end.nonzero()[0].tolist() == [engine.text.eos]
    (same,) = scored(ViewsVerifier(engine, asked), *branches("3"))
    assert same == pytest.approx(whole, abs=1e-5)


@pytest.mark.parametrize("format", ["nvarc", "architects"])
def test_a_grid_is_told_from_its_first_rows_by_the_end_of_the_turn(
    format: str, tmp_path: Path
) -> None:
    """A product of experts is the direct sum over the tokens of every view, the end included."""
    task = ArcTask(format=format)
    options: dict[str, Any] = {"dtype": "float32", "device": "cpu", "memory_cap": 1 << 26}
    policy = load_torch_engine(tiny_model(tmp_path / "tiny", context=1024), **options)
    (problem,) = task.problems_of(random_puzzle(0))
    answers = ("12\n34\n56", "12\n34", "12")
    own = View(SAME, problem.prompt)
    said = [task.solution_in(problem, own, answer) for answer in answers]
    got = scored(own_views(task, policy, views=2), *(whole(problem, text) for text in said))
    for answer, score in zip(answers, got, strict=True):
        seen = [
            ScoreRequest(view.prompt, task.solution_in(problem, view, answer), end=True)
            for view in task.views(problem, 2)
        ]
        assert score == pytest.approx(sum(by_hand(policy, view) for view in seen), abs=1e-3)
        assert score < sum(by_hand(policy, replace(view, end=False)) for view in seen) - 0.1
    asyncio.run(policy.aclose())


def test_it_meets_the_contract_and_says_what_decides_the_score(engine: Any) -> None:
    verifier = ViewsVerifier(engine, render, combine="mean", base_log_prob=3)
    assert isinstance(verifier, Verifier)
    assert verifier.info.revision == f"{engine.info.revision}/views/mean/3"
    check_policy(verifier, engine.info)
    verifier.forget()


def test_what_it_cannot_work_with_is_refused(engine: Any) -> None:
    with pytest.raises(SpecError, match="combine is sum or mean or min or max"):
        ViewsVerifier(engine, render, combine="median")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="finite"):
        ViewsVerifier(engine, render, base_log_prob=math.inf)
    with pytest.raises(UnsupportedError, match="does not score given texts"):
        ViewsVerifier(SimulatedEngine(Echo()), render)
