"""Reliability test 8: whatever could change a sample is in its key; what could not is not."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from tests.runs.world import engine

from mull.budget import Ledger, Meter, Purpose
from mull.engines.cache import RecordingEngine
from mull.engines.simulated import simulated_problem
from mull.store import Store, request_key, score_key
from mull.store.keys import INDEXED, LATER, RECORDED_AS, SCHEDULING
from mull.store.rows import digest
from mull.types import (
    Completion,
    EngineInfo,
    Message,
    Prompt,
    Request,
    Sampling,
    ScoreRequest,
    ThresholdDFS,
    TokenBeam,
    Until,
)

INFO = EngineInfo("torch", "m", "r", "t", "c", "a", "u", "d")
BASE = Request(Prompt.of("p"), Until(10))
SCORED = ScoreRequest(Prompt.of("p"), "text")

OTHER: dict[type[Any], dict[str, list[Any]]] = {
    Request: {
        "prompt": [Prompt.of("q"), Prompt.chat(Message("user", "p")), Prompt(token_ids=(1,))],
        "until": [Until(11)],
        "assistant": ["so far"],
        "assistant_ids": [(), (1, 2)],
        "decoding": [Sampling(0.5), TokenBeam(2), TokenBeam(3), ThresholdDFS(0.5)],
        "seed": [1],
        "weights": ["", "adapt-1"],
        "logprobs": [False],
    },
    Until: {
        "max_tokens": [11],
        "steps": [1, 2],
        "tokens": [1, 2],
        "separator": ["\n\n"],
        "stop": [("a",), ("b",), ("a", "b"), ("ab",)],
    },
    Sampling: {
        "temperature": [0.5, 0.999],
        "top_k": [1],
        "top_p": [0.5],
        "min_p": [0.5],
    },
    TokenBeam: {"width": [5], "length_penalty": [0.5]},
    ThresholdDFS: {"threshold": [0.25]},
    Message: {"role": ["system", "assistant"], "content": ["other"]},
    ScoreRequest: {
        "prompt": [Prompt.of("q")],
        "assistant": ["other"],
        "assistant_ids": [(1,)],
        "separator": ["\n\n"],
        "values": [True],
        "logprobs": [False],
        "weights": ["", "adapt-1"],
        "certainty": [True],
        "end": [True],
        "pieces": [("x", "y"), ("xy",)],
    },
}
IDENTITY = ("kind", "model", "revision", "tokenizer", "template", "adapter", "url", "dtype")
NO_IDENTITY = ("parameters", "layers", "width", "context", "slots", "price", "capabilities")


def variants(value: Any) -> list[Any]:
    """The value with each of its fields changed in turn."""
    return [
        replace(value, **{name: other})
        for name, others in OTHER[type(value)].items()
        for other in others
    ]


def test_every_field_is_tried_or_said_to_be_no_part_of_the_key() -> None:
    for kind, others in OTHER.items():
        left_out = INDEXED | SCHEDULING if kind is Request else set()
        assert {*others, *left_out} == {field.name for field in fields(kind)}, kind
    assert {*IDENTITY, *NO_IDENTITY} == {field.name for field in fields(EngineInfo)}


def test_every_change_of_a_request_is_a_miss() -> None:
    requests = [BASE, *variants(BASE)]
    requests += [replace(BASE, until=until) for until in variants(BASE.until)]
    requests += [replace(BASE, decoding=decoding) for decoding in variants(Sampling())]
    for search in (TokenBeam(2), ThresholdDFS(0.5)):
        requests += [replace(BASE, decoding=decoding) for decoding in variants(search)]
    turns = [Message("user", "x"), *variants(Message("user", "x"))]
    requests += [replace(BASE, prompt=Prompt.chat(turn)) for turn in turns]
    requests += [replace(BASE, prompt=Prompt.chat(turns[0], turn)) for turn in turns]
    distinct = list(dict.fromkeys(requests))
    assert len({request_key(request, INFO) for request in distinct}) == len(distinct)


def test_every_change_of_a_text_to_score_is_a_miss() -> None:
    requests = [SCORED, *variants(SCORED)]
    keys = {score_key(request, INFO) for request in requests}
    assert len(keys) == len(requests)
    assert request_key(BASE, INFO) not in keys


def test_a_field_that_came_later_changes_no_key_where_it_is_not_asked() -> None:
    kept = {each.name: getattr(SCORED, each.name) for each in fields(ScoreRequest)}
    for name, default in LATER.items():
        assert kept.pop(name) == default
    before = digest(["score", list(INFO.identity), {"type": "ScoreRequest", **kept}])
    assert score_key(SCORED, INFO) == before


def test_a_renamed_field_changes_no_key() -> None:
    """Adapted weights were an ``adapter`` once: what was recorded under them is found again."""
    kept = {each.name: getattr(BASE, each.name) for each in fields(Request)}
    for name in (*INDEXED, *SCHEDULING, "weights"):
        del kept[name]
    for weights in (None, "adapt-1"):
        before = digest(["generate", list(INFO.identity), {**kept, "adapter": weights}])
        assert request_key(replace(BASE, weights=weights), INFO) == before
    scored = {"prompt": SCORED.prompt, "assistant": "text", "assistant_ids": None}
    scored |= {"separator": "\n", "values": False, "logprobs": True, "adapter": "adapt-1"}
    before = digest(["score", list(INFO.identity), {"type": "ScoreRequest", **scored}])
    assert score_key(replace(SCORED, weights="adapt-1"), INFO) == before


@pytest.mark.parametrize("search", [TokenBeam(8), ThresholdDFS(0.1)])
def test_which_ranks_of_a_search_were_asked_for_is_part_of_its_key(
    search: TokenBeam | ThresholdDFS,
) -> None:
    base = replace(BASE, decoding=search)
    asked = [replace(base, n=n, first=first) for n in (1, 2, 4) for first in (0, 1, 2)]
    assert len({request_key(each, INFO) for each in asked}) == len(asked)
    assert request_key(replace(base, priority=7, deltas=True), INFO) == request_key(base, INFO)


@pytest.mark.parametrize("search", [TokenBeam(8), ThresholdDFS(0.1)])
def test_ranks_that_were_recorded_without_that_are_never_served(
    search: TokenBeam | ThresholdDFS,
) -> None:
    asked = replace(BASE, decoding=search)
    kept = {
        RECORDED_AS.get(each.name, each.name): getattr(asked, each.name)
        for each in fields(Request)
        if each.name not in INDEXED | SCHEDULING
    }
    before = digest(["generate", list(INFO.identity), kept])
    assert all(
        request_key(replace(asked, n=n, first=first), INFO) != before
        for n in range(1, 9)
        for first in range(9)
    )
    drawn = {**kept, "decoding": Sampling()}
    before = digest(["generate", list(INFO.identity), drawn])
    assert request_key(replace(asked, decoding=Sampling()), INFO) == before  # samples are found


@pytest.mark.parametrize("name", IDENTITY)
def test_every_part_of_the_engines_identity_is_part_of_the_key(name: str) -> None:
    other = replace(INFO, **{name: "other"})
    assert request_key(BASE, other) != request_key(BASE, INFO)
    assert score_key(SCORED, other) != score_key(SCORED, INFO)


def test_neighbouring_parts_of_the_identity_do_not_run_together() -> None:
    one = replace(INFO, model="ab", revision="c")
    other = replace(INFO, model="a", revision="bc")
    assert request_key(BASE, one) != request_key(BASE, other)


def test_how_many_and_when_are_no_part_of_the_key() -> None:
    same = [
        replace(BASE, n=7),
        replace(BASE, first=7),
        replace(BASE, priority=7),
        replace(BASE, deltas=True),
        replace(BASE, decoding=Sampling(1)),  # 1 == 1.0
    ]
    assert {request_key(request, INFO) for request in same} == {request_key(BASE, INFO)}
    for change in ({"slots": 9}, {"price": (1.0, 2.0, 3.0)}, {"context": 5}):
        assert request_key(BASE, replace(INFO, **change)) == request_key(BASE, INFO)


async def test_two_models_on_one_store_never_mix(tmp_path: Path) -> None:
    prompt = simulated_problem("p", 0.6, 4, 17).prompt
    request = Request(prompt, Until(200), n=8)
    with Store.open(tmp_path) as store:
        for turn in range(2):
            for model in ("a", "b"):
                inner = engine(0.0, model=model)
                recording = RecordingEngine(inner, store)
                meter = Meter(Ledger(), Purpose.POLICY, inner.info)
                made = [item async for item in recording.generate(request, meter)]
                assert sum(isinstance(item, Completion) for item in made) == 8
                assert (inner.stats.generated == 0) == (turn == 1)
                assert [row[1] for row in meter.ledger.rows()] == [model]
