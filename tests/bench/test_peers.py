"""The comparison with a peer: the same work for all, metered where it is made, told apart exactly.

What needs the peer is skipped where it is not installed.
"""

from __future__ import annotations

import inspect
import json
import sys
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from mull.bench import peers
from mull.bench.peers import CONTENDERS, DEPTH, PATHS, Contender, beside, peers_table
from mull.bench.peers_child import reward
from mull.errors import EngineError

pytestmark = pytest.mark.timeout(30)  # processes are started; no clock is asserted

PLAIN = Contender("mull, no guesses", True, True, guesses=False)
GUESSING = Contender("mull", True, True)
PEERS = tuple(one for one in CONTENDERS if not one.ours)
needs_peer = pytest.mark.skipif(
    peers.its_hub_python() is None, reason=f"{peers.ITS_HUB_PYTHON} names no interpreter"
)


def test_what_we_report_is_what_the_endpoint_metered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "its_hub_python", lambda: None)
    races = beside(2, 1, ("beam", "vote"), (PLAIN, GUESSING, *PEERS), token_ms=0.2)
    found = {(race.search, race.contender): race for race in races}
    assert set(found) == {("beam", "mull, no guesses"), ("beam", "mull"), ("vote", "mull")}

    (plain,) = found["beam", "mull, no guesses"].legs
    assert plain.exact
    assert plain.calls == 2 * PATHS * DEPTH
    assert plain.cancelled == plain.estimated == 0
    (vote,) = found["vote", "mull"].legs
    assert vote.exact
    assert vote.calls == 2 * PATHS

    # Of a cancelled request no endpoint tells what it had made; all others are counted.
    (guessing,) = found["beam", "mull"].legs
    assert guessing.calls - guessing.cancelled >= plain.calls
    assert guessing.reported is not None
    assert guessing.reported - guessing.estimated <= guessing.metered

    table = peers_table(races)
    assert table.row_count == len(races)
    console = Console(width=250, record=True)
    console.print(table)
    assert f"{plain.metered:,}, exact" in console.export_text()
    json.dumps([asdict(race) for race in races])


@needs_peer
def test_the_peer_does_the_same_work_but_for_its_first_level() -> None:
    """Its beam begins with budget / width paths; particles and votes are ours call by call."""
    races = beside(1, 1, ("beam", "particles", "vote"), (GUESSING, *PEERS), token_ms=0.2)
    calls = {"beam": PATHS // 4 + (DEPTH - 1) * PATHS, "particles": DEPTH * PATHS, "vote": PATHS}
    for race in races:
        if race.contender.startswith("its_hub"):
            (leg,) = race.legs
            assert leg.calls == calls[race.search]
            assert leg.cancelled == 0
            assert leg.exact if race.search == "vote" else leg.reported is None
    assert len(races) == 3 * (1 + len(PEERS))


def test_a_peer_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(peers.ITS_HUB_PYTHON, sys.executable)
    monkeypatch.setattr(peers, "CHILD", "raise SystemExit('no module its_hub')")
    with pytest.raises(EngineError, match="its_hub ended without an answer: no module its_hub"):
        beside(1, 1, ("vote",), PEERS, token_ms=0.2)


STEPS = st.lists(st.sampled_from(["ok ", "slip 1 ", "lure 2 "]), min_size=1, max_size=8)


@given(STEPS)
def test_both_sides_have_one_reward(words: list[str]) -> None:
    """The peer runs the source of ours, and sees the text without the last separator."""
    theirs: dict[str, Any] = {}
    exec(f"import hashlib\n{inspect.getsource(reward)}", theirs)  # noqa: S102 (our own source)
    text = "\n\n".join(f"step {i}: {word}...." for i, word in enumerate(words, 1))
    assert 0.0 < reward(text) < 1.0
    assert theirs["reward"](text) == reward(f"{text}\n\n")


@given(STEPS, STEPS)
def test_more_right_steps_score_higher(some: list[str], others: list[str]) -> None:
    size = min(len(some), len(others))
    texts = ["\n".join(f"step 1: {w}." for w in words[:size]) for words in (some, others)]
    right = [text.count(": ok ") for text in texts]
    if right[0] > right[1]:
        assert reward(texts[0]) > reward(texts[1])
