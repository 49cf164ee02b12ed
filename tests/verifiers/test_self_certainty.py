"""Self-certainty: the policy reads its own text once more and tells the whole distribution."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from dataclasses import replace
from statistics import fmean
from typing import Any

import pytest
from tests.verifiers.common import branch, meter, scored, whole

import mull
from mull.budget import Ledger, Meter, Purpose
from mull.catalog import load_task, load_verifier
from mull.engines.simulated import SimulatedEngine, StepModel
from mull.engines.torch import load_torch_engine
from mull.errors import SpecError, UnsupportedError
from mull.selection import Weighted
from mull.types import Branch, Candidate, Problem, Prompt, ScoreRequest, Step, StopReason
from mull.verifiers.base import Verifier, close
from mull.verifiers.confidence import SelfCertainty

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.engines.torch.conftest import make_checkpoint  # noqa: E402

PROBLEM = Problem("p", Prompt.of("1+2=alpha beta.\n3+4="))


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A tiny random model."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = make_checkpoint(tmp_path_factory.mktemp("certain") / "tiny", "qwen2")
    engine = load_torch_engine(folder, dtype="float32", device="cpu", memory_cap=1 << 26)
    yield engine
    asyncio.run(engine.aclose())
    torch.set_num_threads(before)


def certainty(policy: Any, prompt: Prompt, text: str) -> tuple[float, ...]:
    request = ScoreRequest(prompt, text, certainty=True)
    (found,) = asyncio.run(policy.score([request], meter(SelfCertainty(policy))))
    return tuple(found.certainty)


def test_a_score_is_the_mean_over_the_tokens_of_the_text(policy: Any) -> None:
    branches = [
        branch(PROBLEM, "7.\n", "alpha.\n"),
        whole(PROBLEM, "7"),
        whole(PROBLEM, "beta" * 9),
    ]
    found = scored(SelfCertainty(policy), *branches)
    for each, score in zip(branches, found, strict=True):
        assert score == pytest.approx(fmean(certainty(policy, PROBLEM.prompt, each.text)), abs=1e-5)
        assert score > 0


def test_the_end_token_and_where_the_steps_part_do_not_count(policy: Any) -> None:
    ids = policy.text.encode("7.\n8")
    root = Branch.root(PROBLEM)
    last = Step("7.\n8", StopReason.END, (*ids, 2))
    apart = (Step("7.\n", StopReason.STEP, ids[:3]), Step("8", StopReason.END, (*ids[3:], 2)))
    by_text = whole(PROBLEM, "7.\n8")
    found = scored(
        SelfCertainty(policy), replace(root, steps=(last,)), replace(root, steps=apart), by_text
    )
    assert found == pytest.approx([found[0]] * 3, abs=1e-5)


def test_a_revision_is_read_behind_its_history(policy: Any) -> None:
    again = replace(whole(PROBLEM, "7").revision("no."), steps=(Step("8", StopReason.END),))
    (score,) = scored(SelfCertainty(policy), again)
    assert again.prompt != PROBLEM.prompt
    assert score == pytest.approx(fmean(certainty(policy, again.prompt, "8")), abs=1e-5)


def test_what_cannot_be_read_has_no_score_and_spoils_no_other(policy: Any) -> None:
    cases = [whole(PROBLEM, "7" * 300), Branch.root(PROBLEM), whole(PROBLEM, "7")]
    found = scored(SelfCertainty(policy), *cases)
    assert [math.isnan(score) for score in found] == [True, True, False]


def test_what_it_reads_is_charged_as_the_verifiers(policy: Any) -> None:
    policy.forget()
    verifier = SelfCertainty(policy)
    gauge = meter(verifier)
    asked = Problem("q", Prompt.of(PROBLEM.prompt.plain * 2))
    scored(verifier, whole(asked, "7.\n"), whole(asked, "8.\n"), gauge=gauge)
    prompt = len(policy.text.prompt(asked.prompt))
    assert gauge.samples == (0, 1) and gauge.total.generated == 0
    assert gauge.total.prompt == 2 * (prompt + 3)
    assert gauge.total.tokens <= prompt + 3 + (3 + 1)  # the prompt once, but for its last token
    assert [purpose for purpose, *_ in gauge.ledger.rows()] == [Purpose.VERIFIER]


def test_the_spec_needs_the_policy_and_leaves_it_open(policy: Any) -> None:
    task = load_task("words")
    made = load_verifier("self-certainty", task=task, policy=policy.info, policy_engine=policy)
    assert isinstance(made, Verifier) and made.policy == ()
    assert made.info.identity != policy.info.identity
    asyncio.run(close(made))
    assert scored(made, whole(PROBLEM, "7")) == scored(SelfCertainty(policy), whole(PROBLEM, "7"))
    with pytest.raises(SpecError, match="not at hand"):
        load_verifier("self-certainty", task=task, policy=policy.info)


@pytest.mark.parametrize("strategy", ["best-of-n", "weighted-vote"])
def test_strategies_select_by_it(policy: Any, strategy: str) -> None:
    spec = f"{strategy}(n=4, verifier=self-certainty)"
    found = mull.solve(PROBLEM, policy, task="gsm8k", strategy=spec)
    told = [each for each in found.candidates if each.answer is not None]
    assert told and all(each.scores["self-certainty"] > 0 for each in told)
    if strategy == "best-of-n":
        assert found.answer == max(told, key=lambda each: each.scores["self-certainty"]).answer
    paid = {row[0] for row in found.ledger.rows()}
    assert paid == {Purpose.POLICY, Purpose.VERIFIER}


def test_nats_above_one_weigh_votes() -> None:
    told = [("7", 2.0), ("7", 2.5), ("9", 4.0)]
    made = [Candidate((i,), "", a, scores={"s": s}) for i, (a, s) in enumerate(told)]
    assert Weighted("s")(made).answer == "7"


def test_a_policy_that_does_not_tell_the_distribution_is_refused() -> None:
    simulated = SimulatedEngine(StepModel())
    with pytest.raises(UnsupportedError, match="every token of the vocabulary, which simulated:"):
        SelfCertainty(simulated)
    with pytest.raises(UnsupportedError, match="cannot honour: certainty"):
        request = ScoreRequest(PROBLEM.prompt, "7", certainty=True)
        gauge = Meter(Ledger(), Purpose.VERIFIER, simulated.info)
        asyncio.run(simulated.score([request], gauge))
