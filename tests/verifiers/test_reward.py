"""Reward models: a step is encoded once, scores are those of the whole text, ids only if safe."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.verifiers.common import branch, meter, scored

from mull.budget import Meter
from mull.catalog import load_task, load_verifier
from mull.engines.simulated import Script, SimulatedEngine, StepModel
from mull.engines.torch import load_torch_engine
from mull.errors import SpecError
from mull.types import (
    Attempt,
    Branch,
    EngineInfo,
    Problem,
    Prompt,
    ScoreRequest,
    Step,
    StopReason,
)
from mull.verifiers.base import Verifier, check_policy, forget_prefixes
from mull.verifiers.reward import RewardVerifier

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402
from tests.engines.torch.conftest import make_checkpoint  # noqa: E402

PROBLEM = Problem("p", Prompt.of("1+2+3+4=alpha beta.\n5+6+7=gamma delta.\n"))
WORDS = ["alpha", "beta", "gamma", "delta", "ab", "bc", *"0123456789+=."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with a value head, in the layout of a Hugging Face checkpoint."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    path = make_checkpoint(tmp_path_factory.mktemp("reward") / "tiny-prm", "llama")
    tensors = load_file(str(path / "model.safetensors"))
    torch.manual_seed(1)
    tensors["value_head.weight"] = torch.randn(1, 32)
    tensors["value_head.bias"] = torch.zeros(1)
    save_file(tensors, str(path / "model.safetensors"))
    torch.set_num_threads(before)
    return path


@pytest.fixture
def load(folder: Path) -> Iterator[Callable[..., Any]]:
    """``load(memory_cap=…)``: a fresh engine each time, closed at the end."""
    made = []

    def get(**options: Any) -> Any:
        given = {"dtype": "float32", "device": "cpu", "memory_cap": 1 << 26, **options}
        made.append(load_torch_engine(folder, **given))
        return made[-1]

    yield get
    for engine in made:
        asyncio.run(engine.aclose())


def lines(draw: random.Random, count: int) -> list[str]:
    """Different steps of 8 to 12 tokens."""
    return ["".join(draw.choices(WORDS, k=draw.randint(7, 11))) + "\n" for _ in range(count)]


def beam(
    verifier: RewardVerifier, *, keep: int = 4, width: int = 4, depth: int = 5
) -> tuple[Meter, list[Branch], dict[str, float]]:
    """A beam search by hand: children of the survivors, level by level, scored batch by batch."""
    draw, gauge = random.Random(0), meter(verifier)
    level = [Branch.root(PROBLEM)]
    seen: list[Branch] = []
    said: dict[str, float] = {}

    async def search() -> None:
        nonlocal level
        for _ in range(depth):
            children = [
                branch(PROBLEM, *(s.text for s in parent.steps), text, key=(*parent.key, at))
                for parent in level
                for at, text in enumerate(lines(draw, width * keep // len(level)))
            ]
            scratch = meter(verifier)
            found = await verifier.score(children, scratch)
            for at in range(len(children)):
                gauge.restore(len(seen) + at, scratch.usage(at))
            seen.extend(children)
            said.update(zip((c.text for c in children), found, strict=True))
            order = sorted(zip(found, children, strict=True), key=lambda p: (-p[0], p[1].key))
            level = [child for _, child in order[:keep]]

    asyncio.run(search())
    return gauge, seen, said


def test_a_beam_search_encodes_every_step_once(load: Callable[..., Any]) -> None:
    """Tokens encoded ÷ tokens new is at most 1.05; re-reading each branch would make it 3."""
    verifier = RewardVerifier(load(), aggregate="min")
    gauge, seen, _ = beam(verifier)
    text = verifier.engine.text  # type: ignore[attr-defined]
    new = len(text.prompt(PROBLEM.prompt)) + sum(len(text.encode(b.steps[-1].text)) for b in seen)
    encoded = gauge.total.prompt - gauge.total.cached
    assert len(seen) == 80
    assert 0.95 * new <= encoded <= 1.05 * new
    assert gauge.total.prompt > 2.5 * new


@pytest.mark.parametrize("aggregate", ["last", "min", "product", "mean"])
def test_scores_are_those_of_the_whole_text_read_at_once(
    load: Callable[..., Any], aggregate: str
) -> None:
    _, seen, said = beam(RewardVerifier(load(), aggregate=aggregate), depth=3)  # type: ignore[arg-type]
    fresh = load(one_row=True)
    requests = [ScoreRequest(PROBLEM.prompt, b.text, values=True) for b in seen]
    alone = asyncio.run(fresh.score(requests, meter(RewardVerifier(fresh))))
    how: dict[str, Callable[[Sequence[float]], float]] = {
        "last": lambda v: v[-1],
        "min": min,
        "product": math.prod,
        "mean": lambda v: sum(v) / len(v),
    }
    for each, scores in zip(seen, alone, strict=True):
        assert len(scores.values) == each.depth
        assert said[each.text] == pytest.approx(how[aggregate](scores.values), abs=1e-4)
        assert 0 < said[each.text] < 1


def test_eviction_costs_tokens_and_changes_no_score(load: Callable[..., Any]) -> None:
    """With room for little more than the running rows, what was evicted is read and paid again."""
    gauge, _, said = beam(RewardVerifier(load(), aggregate="product"))
    tight = load(memory_cap=1 << 16)
    poor, _, again = beam(RewardVerifier(tight, aggregate="product"))
    assert poor.total.prompt == gauge.total.prompt
    assert poor.total.cached < gauge.total.cached
    assert again == pytest.approx(said, abs=1e-4)
    asyncio.run(tight.aclose())
    assert tight.batch.tree.bytes <= 1 << 16


def test_a_branch_scored_twice_costs_nothing_the_second_time(load: Callable[..., Any]) -> None:
    verifier = RewardVerifier(load())
    given = branch(PROBLEM, "alpha=1\n", "beta=2\n")
    first, second = meter(verifier), meter(verifier)
    one = scored(verifier, given, given, gauge=first)
    assert one[0] == one[1]
    assert scored(verifier, given, gauge=second) == one[:1]
    assert second.total.prompt == second.total.cached == first.usage(0).prompt
    assert first.usage(1).cached == first.usage(1).prompt


def test_what_is_forgotten_is_paid_again_and_scores_the_same(load: Callable[..., Any]) -> None:
    verifier = RewardVerifier(load())
    given = branch(PROBLEM, "alpha=1\n", "beta=2\n")
    first, second = meter(verifier), meter(verifier)
    one = scored(verifier, given, gauge=first)
    verifier.forget()
    assert scored(verifier, given, gauge=second) == one
    assert second.total.tokens == first.total.tokens > 0
    forget_prefixes(object())  # most things remember nothing


def test_the_policys_own_tokens_are_used_where_the_tokenizer_is_the_same(
    load: Callable[..., Any],
) -> None:
    engine = load()
    exact = RewardVerifier(engine, tokenizer=engine.info.tokenizer)
    # "ab" "bc" and "a…": the same text may be made of other tokens than the tokenizer's own.
    ids = (
        tuple(engine.text.encode("1"))
        + tuple(engine.text.encode("2"))
        + tuple(engine.text.encode("\n"))
    )
    end = (*ids, 2)
    step = Step("12\n", StopReason.END, end)
    made = Branch(PROBLEM, PROBLEM.prompt, (0,), steps=(step,))
    assert exact._ids(made) == ids  # the end token is no part of the text
    stopped = Branch(PROBLEM, PROBLEM.prompt, steps=(Step("1", StopReason.STOP, ids),))
    assert exact._ids(stopped) is None  # a stop string is in the tokens, not in the text
    assert RewardVerifier(engine, tokenizer="other")._ids(made) is None
    assert RewardVerifier(engine)._ids(made) is None
    assert scored(exact, made) == pytest.approx(scored(RewardVerifier(engine), made))


def test_history_is_read_only_if_asked(load: Callable[..., Any]) -> None:
    engine = load()
    first = branch(PROBLEM, "alpha=1\n")
    later = Branch(PROBLEM, PROBLEM.prompt, (0, -1, 0), (Attempt("beta=2\n"),), first.steps)
    blind, seeing = RewardVerifier(engine), RewardVerifier(engine, history=True)
    assert scored(blind, later) == scored(blind, first)
    assert scored(seeing, later) != scored(blind, later)
    assert scored(seeing, first) == scored(blind, first)
    assert blind.info.identity != seeing.info.identity


def test_what_cannot_be_scored_is_nan_and_spoils_no_other(load: Callable[..., Any]) -> None:
    verifier = RewardVerifier(load())
    short, long = branch(PROBLEM, "alpha=1\n"), branch(PROBLEM, "9" * 300 + "\n")
    gauge = meter(verifier)
    found = scored(verifier, long, short, Branch.root(PROBLEM), gauge=gauge)
    assert math.isnan(found[0]) and math.isnan(found[2])
    assert [found[1]] == scored(verifier, short)
    assert gauge.usage(0).prompt == 0 < gauge.usage(1).prompt


def test_an_engine_without_a_value_head_is_refused() -> None:
    with pytest.raises(SpecError, match="has no value head"):
        RewardVerifier(SimulatedEngine(Script(["a"])))
    with pytest.raises(SpecError, match="aggregate is last or min or product or mean"):
        RewardVerifier(SimulatedEngine(StepModel()), aggregate="sum")  # type: ignore[arg-type]


# By name ------------------------------------------------------------------------------------


def test_the_price_of_a_reward_model_stands_in_its_spec(folder: Path) -> None:
    spec = f"{folder}(dtype=float32, price='1,0.1,2')"
    verifier = load_verifier(spec, task=load_task("words"), policy=EngineInfo("torch", "tiny"))
    assert verifier.info.price == (1.0, 0.1, 2.0)


def test_a_directory_with_a_card_is_loaded_for_its_policy_alone(folder: Path) -> None:
    task = load_task("words")
    policy = EngineInfo("torch", "tiny", "r1")
    spec = f"{folder}(aggregate=min, dtype=float32, memory_cap=10000000)"
    verifier = load_verifier(spec, task=task, policy=policy)  # no card: it fits any
    assert isinstance(verifier, RewardVerifier)
    assert isinstance(verifier, Verifier)
    assert (verifier.aggregate, verifier.info.model) == ("min", "tiny-prm")
    assert verifier.info.revision.endswith("/min")
    card = folder / "card.json"
    try:
        card.write_text(json.dumps({"kind": "prm", "policy": {"model": "tiny", "revision": "r2"}}))
        with pytest.raises(SpecError, match=r"trained for policy 'tiny' \(revision r2\), not for"):
            load_verifier(spec, task=task, policy=policy)
        free = spec[:-1] + ", any_policy=true)"
        assert load_verifier(free, task=task, policy=policy).policy == ()
        other = EngineInfo("torch", "renamed", "r2")
        found = load_verifier(spec, task=task, policy=other)
        assert found.policy == ("tiny", "r2")
        check_policy(found, other)
        with pytest.raises(SpecError, match="expected last or min or product or mean"):
            load_verifier(f"{folder}(aggregate=sum)", task=task, policy=other)
        card.write_text(json.dumps({"kind": "reviser"}))
        with pytest.raises(SpecError, match="is a reviser, no verifier"):
            load_verifier(spec, task=task, policy=policy)
    finally:
        card.unlink(missing_ok=True)
