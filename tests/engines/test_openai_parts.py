"""Laws of the parts of the openai engine: addresses, keys, events, endings, shares, waits."""

import pickle
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mull.engines.openai import DEFAULT_KEY, Secret, load_openai
from mull.engines.openai.endpoint import find_key, parse_address
from mull.engines.openai.settle import Gate, ending, first_stop, share_out
from mull.engines.openai.sse import EventReader
from mull.engines.openai.transport import parse_json, wait_asked
from mull.engines.openai.wire import (
    Choice,
    Tokens,
    finish_of,
    index_of,
    logprobs_of,
    read_answer,
    read_usage,
    whole,
)
from mull.errors import MullError, ProtocolError, SpecError
from mull.types import StopReason, Until


@pytest.mark.parametrize(
    "bad",
    [
        "http://host:8000/v1",
        "ftp://host/v1#m",
        "http:///v1#m",
        "http://user:sk-secret@host/v1#m",
        "http://host/v1?key=sk-secret#m",
        "http://host:99999/v1#m",
        "http://host:no/v1#m",
        "",
    ],
)
def test_a_bad_address_is_refused_and_not_repeated(bad):
    with pytest.raises(SpecError) as caught:
        load_openai(bad)
    assert "sk-secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_good_addresses():
    assert parse_address("https://h/v1/#a/b-c") == ("https://h/v1", "a/b-c")
    assert parse_address("http://[::1]:80/v1#m") == ("http://[::1]:80/v1", "m")


@pytest.mark.parametrize(
    "options",
    [
        {"api": "both"},
        {"dialect": "x"},
        {"continuation": "guess"},
        {"deadline_s": float("nan")},
        {"deadline_s": 0.0},
        {"attempt_s": -1.0},
        {"retries": -1},
        {"slots": 0},
        {"parameters": -1},
        {"token_ids": True},
        {"timeout": 3},
        {"deadline_s": "30"},
        {"attempt_s": "1"},
        {"stream": 1},
        {"max_n": 2.0},
        {"api": ["chat"]},
    ],
)
def test_bad_options_are_refused_by_name(options):
    with pytest.raises(SpecError, match=next(iter(options))):
        load_openai("http://h/v1#m", **options)


def test_keys_come_from_variables_and_files_and_go_where_they_belong(monkeypatch, tmp_path):
    monkeypatch.delenv(DEFAULT_KEY, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-openai")
    assert find_key("http://127.0.0.1/v1", None, None) is None
    found = find_key("https://api.openai.com/v1", None, None)
    assert found is not None and found.reveal() == "sk-openai"
    monkeypatch.setenv("MINE", "sk-mine")
    assert find_key("http://h/v1", "MINE", None).reveal() == "sk-mine"
    file = tmp_path / "key"
    file.write_text("sk-file\n")
    assert find_key("http://h/v1", None, file).reveal() == "sk-file"
    file.write_text("two words")
    for bad in ({"key_env": "NOT_SET"}, {"key_file": tmp_path / "none"}, {"key_file": file}):
        with pytest.raises(SpecError):
            load_openai("http://h/v1#m", **bad)


def test_a_secret_does_not_print_or_travel():
    secret = Secret("sk-canary")
    assert "canary" not in f"{secret} {secret!r} {[secret]} {pickle.dumps(secret)!r}"
    assert secret.redact("key sk-canary!") == "key ***!"


@given(st.integers(0, 10**6))
def test_events_do_not_depend_on_where_the_stream_is_cut(seed):
    rng = random.Random(seed)
    newline = rng.choice([b"\n", b"\r\n"])
    datas = ["".join(rng.choices("ab{}:é🙂", k=rng.randint(1, 9))) for _ in range(4)]
    lines = []
    for data in datas:
        lines += [b": comment"] * rng.randint(0, 1) + [b"data: " + data.encode(), b""]
    raw = newline.join([*lines, b"data: [DONE]", b"", b""])
    reader, seen, at = EventReader(), [], 0
    while at < len(raw):
        step = rng.randint(1, 7)
        seen += reader.feed(raw[at : at + step])
        at += step
    assert seen == [*datas, "[DONE]"]
    assert reader.done


def test_a_stream_that_is_no_event_stream_is_refused():
    with pytest.raises(ProtocolError, match="UTF-8"):
        list(EventReader().feed(b"data: \xff\n"))
    with pytest.raises(ProtocolError, match="event stream"):
        list(EventReader().feed(b"<html>\n"))
    reader = EventReader()
    assert list(reader.feed(b"data: {}\n\ndata: [DO")) == ["{}"]
    assert not reader.done


@given(st.text("ab\n", max_size=12), st.lists(st.text("ab\n", min_size=1, max_size=3), max_size=3),
       st.integers(0, 10**6))  # fmt: skip
def test_a_gate_shows_all_up_to_the_first_stop_and_nothing_of_it(text, stops, seed):
    rng = random.Random(seed)
    gate, shown, at = Gate(stops), "", 0
    while at < len(text):
        step = rng.randint(1, 3)
        shown += gate.push(text[at : at + step])
        at += step
        met = first_stop(text[:at], stops)
        assert (text if met is None else text[: met[0]]).startswith(shown)
    met = first_stop(text, stops)
    if met is None:
        assert shown + gate.flush() == text


@given(
    st.lists(st.text(max_size=20), min_size=1, max_size=9),
    st.integers(0, 500),
    st.booleans(),
)
def test_shares_of_tokens_sum_to_the_total(texts, total, scored):
    choices = [
        Choice(i, text, "stop", logprobs=(-1.0,) * len(text) if scored else None)
        for i, text in enumerate(texts)
    ]
    shares, estimated = share_out(choices, Tokens(1, 0, total))
    assert all(share >= 0 for share in shares)
    if total:
        assert sum(shares) == total
    if scored and sum(map(len, texts)) == total:
        assert shares == [len(text) for text in texts]
        assert not estimated or not total


def test_usage_that_is_missing_is_estimated_and_said_so():
    shares, estimated = share_out([Choice(0, "a" * 40, "stop")], None)
    assert shares == [11] and estimated
    assert read_usage({}) is None
    assert read_usage({"usage": {"prompt_tokens": 3, "completion_tokens": 4}}) == Tokens(3, 0, 4)
    for bad in (-1, 2.5, True, "3", 10**20):
        with pytest.raises(ProtocolError, match="usage"):
            read_usage({"usage": {"prompt_tokens": bad, "completion_tokens": 1}})


def test_a_finish_reason_is_known_or_an_error():
    assert [finish_of(r) for r in ("stop", "length", "content_filter")] == [
        "stop",
        "length",
        "content_filter",
    ]
    for bad in (None, "", "abort", "tool_calls", 3, ["stop"]):
        with pytest.raises(ProtocolError, match="finish_reason"):
            finish_of(bad)


def test_logprobs_are_finite_numbers_or_an_error():
    assert logprobs_of({"content": [{"logprob": -1}, {"logprob": 1e-7}]}) == (-1.0, 0.0)
    assert logprobs_of({"token_logprobs": [-2.0]}) == (-2.0,)
    assert logprobs_of(None) is None
    for bad in (float("nan"), float("-inf"), 0.5, None, "x", True):
        with pytest.raises(ProtocolError, match="log-probability"):
            logprobs_of({"token_logprobs": [bad]})


@pytest.mark.parametrize(
    "payload",
    [
        [],
        {},
        {"choices": None},
        {"choices": [3]},
        {"choices": [{"index": 0, "finish_reason": "stop"}]},
        {"choices": [{"index": -1, "text": "", "finish_reason": "stop"}]},
        {"choices": [{"index": True, "text": "", "finish_reason": "stop"}]},
        {"choices": [{"message": {}, "finish_reason": "stop"}]},
        {"choices": [{"message": {"content": 3}, "finish_reason": "stop"}]},
        {"choices": [{"text": "", "finish_reason": "stop", "token_ids": [1.5]}]},
    ],
)
def test_an_answer_of_the_wrong_shape_is_an_error(payload):
    with pytest.raises(ProtocolError):
        read_answer(payload)


KEYS = ["choices", "usage", "index", "text", "message", "content", "finish_reason", "logprobs"]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


def grow(inner):
    return st.lists(inner) | st.dictionaries(st.sampled_from(KEYS), inner)


@given(st.recursive(SCALARS, grow, max_leaves=12))
def test_no_json_breaks_the_reader_in_an_untyped_way(payload):
    for value in (payload, {"choices": [payload]}, {"choices": [], "usage": payload}):
        try:
            read_answer(value)
        except MullError:
            continue


def test_json_is_what_the_standard_says():
    for bad in ("NaN", '{"a": Infinity}', "-Infinity", "{", ""):
        with pytest.raises(ValueError):
            parse_json(bad)


def test_waits_are_read_from_seconds_and_dates_and_nothing_else():
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    assert wait_asked("0", None) == 0.0
    assert wait_asked("1.5", None) == 1.5
    assert wait_asked("1000000000", None) == 1e9
    assert wait_asked("Wed, 21 Oct 2015 07:28:30 GMT", date) == 30.0
    assert wait_asked("Wed, 21 Oct 2015 07:27:30 GMT", date) == 0.0
    for bad in (None, "", "-3", "soon", "1e9", "9" * 40, "Wed, 99 Oct"):
        assert wait_asked(bad, date) is None


def test_a_stop_that_the_endpoint_left_in_the_text_is_cut_here():
    ended = ending(Choice(0, "one\ntwo", "stop", told=True), Until(9, stop=("\n",)), 9, 7)
    assert (ended.text, ended.stop, ended.cut) == ("one", StopReason.STOP, True)
    ended = ending(Choice(0, "one\ntwo", "length", told=True), Until(9, steps=1), 9, 7)
    assert (ended.text, ended.stop, ended.cut) == ("one\n", StopReason.STEP, True)


def test_half_a_surrogate_pair_becomes_storable():
    for text in ("a\ud800b", "\ud83d\ude00", "plain", "日本"):
        whole(text).encode("utf-8")
    assert whole("\ud83d\ude00") == "😀"
    assert whole("日本") == "日本"


def test_an_index_may_be_left_out():
    assert index_of({}) == 0
