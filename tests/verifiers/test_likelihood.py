"""Likelihood: what another model gives the tokens of a text, read once."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests.verifiers.common import branch, meter, scored, whole

from mull.catalog import load_task, load_verifier
from mull.engines.simulated import SimulatedEngine, StepModel
from mull.errors import SpecError, UnsupportedError
from mull.types import (
    Branch,
    Capabilities,
    EngineInfo,
    Problem,
    Prompt,
    ScoreRequest,
    Step,
    StopReason,
)
from mull.verifiers.base import Verifier
from mull.verifiers.likelihood import LikelihoodVerifier

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

PROMPT = Prompt.of("In stock: cups 3, pens are 2 more than cups. How many pens are there?\n")
PROBLEM = Problem("p", PROMPT)
RIGHT = ("- pens = cups 3 + 2 = pens 5\n", "answer 5\n")
WRONG = ("- pens = cups 3 + 2 = pens 6\n", "answer 6\n")


@pytest.fixture(scope="module")
def judge() -> Iterator[Any]:
    """The likelihood of the larger shipped policy, for the smaller one."""
    policy = EngineInfo("torch", "words-s")
    made = load_verifier("likelihood(model=words-m)", task=load_task("words"), policy=policy)
    yield made
    asyncio.run(made.aclose())  # type: ignore[attr-defined]


def test_a_score_is_the_mean_over_the_tokens_of_the_text(judge: Any) -> None:
    assert isinstance(judge, Verifier) and judge.policy == ()
    branches = [whole(PROBLEM, *RIGHT), whole(PROBLEM, *WRONG), branch(PROBLEM, RIGHT[0])]
    found = scored(judge, *branches)
    for each, score in zip(branches, found, strict=True):
        asked = [ScoreRequest(PROMPT, each.text)]
        (told,) = asyncio.run(judge.engine.score(asked, meter(judge)))
        assert score == pytest.approx(math.exp(sum(told.logprobs) / len(told.logprobs)), abs=1e-6)
    assert found[0] > 0.9 > found[1]
    assert found[2] > 0.9


@pytest.mark.parametrize(("aggregate", "of"), [("product", math.fsum), ("min", min)])
def test_the_text_or_its_weakest_token_may_count(judge: Any, aggregate: str, of: Any) -> None:
    made = LikelihoodVerifier(judge.engine, EngineInfo("t", "m"), aggregate=aggregate)
    (score,) = scored(made, whole(PROBLEM, *WRONG))
    (told,) = asyncio.run(judge.engine.score([ScoreRequest(PROMPT, "".join(WRONG))], meter(judge)))
    assert score == pytest.approx(math.exp(of(told.logprobs)), rel=1e-5)
    assert made.info.identity != judge.info.identity


def test_growing_branches_are_read_once(judge: Any) -> None:
    judge.forget()
    gauge = meter(judge)
    asked = Problem("q", Prompt.of(PROMPT.plain.replace("cups 3", "cups 4")))
    scored(judge, branch(asked, RIGHT[0]), gauge=gauge)
    before = gauge.total
    scored(judge, whole(asked, *RIGHT), gauge=gauge)
    ids = judge.engine.text
    new = len(ids.encode("".join(RIGHT))) - len(ids.encode(RIGHT[0]))
    assert gauge.total.tokens - before.tokens <= new


def test_the_policys_own_tokens_are_read_where_both_write_alike(judge: Any) -> None:
    info = judge.engine.info
    ids = tuple(judge.engine.text.encode(RIGHT[0]))
    split = replace(Branch.root(PROBLEM), steps=(Step(RIGHT[0], StopReason.STEP, ids[:-2]),))
    alike = LikelihoodVerifier(judge.engine, EngineInfo("t", "m", tokenizer=info.tokenizer))
    other = LikelihoodVerifier(judge.engine, EngineInfo("t", "m", tokenizer="another"))
    (whole_text,) = scored(judge, branch(PROBLEM, RIGHT[0]))
    assert scored(other, split) == [pytest.approx(whole_text, abs=1e-6)]
    assert scored(alike, split) != [pytest.approx(whole_text, abs=1e-9)]


def test_what_cannot_be_read_has_no_score_and_spoils_no_other(judge: Any) -> None:
    found = scored(judge, whole(PROBLEM, "7 " * 600), Branch.root(PROBLEM), whole(PROBLEM, *RIGHT))
    assert [math.isnan(score) for score in found] == [True, True, False]


def test_it_needs_a_model_that_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = EngineInfo("test", "m")
    with pytest.raises(SpecError, match=r"likelihood\(model=…\)"):
        load_verifier("likelihood", task=load_task("words"), policy=policy)
    with pytest.raises(SpecError, match="aggregate is mean or product or min"):
        load_verifier("likelihood(model=words-m, aggregate=last)", task=load_task("words"),
                      policy=policy)  # fmt: skip
    silent = SimulatedEngine(StepModel())
    monkeypatch.setattr(type(silent), "info", EngineInfo("test", "m", capabilities=Capabilities()))
    with pytest.raises(UnsupportedError, match="use a model in this process"):
        LikelihoodVerifier(silent, policy)
