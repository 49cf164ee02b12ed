"""Cells as rows: what they keep, what replaces them, and rows of before that are still read."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.report.rows import bits, row
from tests.runs.world import Steps, engine, small

from mull.engines.simulated import Fault, Faults
from mull.errors import GradeError, InputError, SpecError, StoreError
from mull.grades import Grade
from mull.report.cells import PROMPTS, CellRow, load, packed, rows_of, save, unpacked
from mull.runs import Records, run
from mull.strategies.base import Strategy
from mull.types import Problem

SEARCHES = ["sample", "vote", "beam", "rebase", "revise(chains=2, verifier=prm)"]


@given(st.lists(st.booleans(), min_size=1, max_size=70))
def test_bits_come_back(right: list[bool]) -> None:
    assert unpacked(packed(right), len(right)).tolist() == [float(bit) for bit in right]


def test_rows_come_back_and_a_newer_one_takes_the_place_of_its_elder(tmp_path: Path) -> None:
    older = [row("vote", n) for n in (1, 4)]
    newer = row("vote", 4, bits(9, 0.9), turns=("ff", "00"), winner_score=0.5)
    (path,) = save(older, tmp_path)
    assert save([newer], tmp_path) == [path]
    assert load(path) == [older[0], newer]
    assert load(tmp_path) == load(path)
    assert load(tmp_path / "nothing.jsonl") == []


def test_the_order_of_saving_changes_no_byte(tmp_path: Path) -> None:
    rows = [row(s, n) for s in ("vote", "beam") for n in (1, 4)]
    for name, order in (("a", rows), ("b", rows[::-1])):
        for each in order:
            save([each], tmp_path / name)
    one, other = (next((tmp_path / name).iterdir()).read_bytes() for name in "ab")
    assert one == other


def test_what_the_problems_asked_is_kept_once_beside_the_rows(tmp_path: Path) -> None:
    prompts = tuple(f"{at:016x}" for at in range(40))
    rows = [row("vote", n, prompts=prompts) for n in (1, 4)]
    (path,) = save(rows, tmp_path)
    save([row("beam", digest="d1")], tmp_path)  # of a run that did not say
    assert prompts[7] not in path.read_text()
    assert load(path)[1:] == rows
    assert [len(set(each.puzzles)) for each in load(tmp_path)] == [40, 40, 40]
    assert [each.prompts for each in load(tmp_path)] == [(), prompts, prompts]
    save([row("greedy", digest="d2", levels="1,2")], tmp_path)  # no digests, nothing to count
    assert len(load(tmp_path)) == 4
    (tmp_path / PROMPTS).write_text(json.dumps({"d0": prompts[1:]}))
    with pytest.raises(InputError, match=r"prompts\.json: 39 digests for the 40 problems"):
        load(path)
    (tmp_path / PROMPTS).write_text("[]")
    with pytest.raises(InputError, match=r"prompts\.json: no digests"):
        load(tmp_path)


def test_tasks_and_policies_have_files_of_their_own(tmp_path: Path) -> None:
    rows = [row(), row(policy="words-m"), row(task="countdown", policy="../out")]
    paths = save(rows, tmp_path)
    assert len(paths) == 3
    assert all(path.parent == tmp_path for path in paths)
    assert sorted(each.policy for each in load(tmp_path)) == ["../out", "words-m", "words-s"]


def test_rows_of_before_the_new_fields_are_still_read(tmp_path: Path) -> None:
    data = asdict(row())
    first_new = [each.name for each in fields(CellRow)].index("models")
    for each in fields(CellRow)[first_new:]:
        del data[each.name]
    (tmp_path / "old.jsonl").write_text(json.dumps(data) + "\n")
    (found,) = load(tmp_path)
    assert (found.models, found.turns, found.winner_score) == ({}, (), None)
    assert found.by_turn.shape == (0, 40)


@pytest.mark.parametrize("line", ["{", "[]", '{"task": "words"}', '{"nosuch": 1}', "null"])
def test_a_line_that_is_no_row_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "bad.jsonl").write_text(line + "\n")
    with pytest.raises(InputError, match=r"bad\.jsonl:1: no row of a cell"):
        load(tmp_path)


def test_a_run_gives_a_row_for_each_cell_that_its_records_bear_out(tmp_path: Path) -> None:
    config = small(
        strategies=SEARCHES,
        samples=[4, 8],
        problems=6,
        verifiers={"prm": "simulated"},
        engines={"reviser": "simulated"},
    )
    assert run(config, tmp_path, engine=engine(), task=Steps(), virtual=True).exit_code == 0
    rows = {(each.strategy, each.n): each for each in rows_of(tmp_path)}
    assert len(rows) == 10
    with Records(tmp_path) as records:
        for cell in records.cells:
            assert cell.budget is not None
            found = rows[cell.strategy, cell.budget.samples or 0]
            results = list(records.results(cell))
            assert found.correct.tolist() == [float(r.correct is True) for r in results]
            spent = sum(r.total.flops for r in results) / len(results)
            assert found.flops + found.guesses_flops == pytest.approx(spent)
        asked = [sorted(problem.text.split()) for problem in records.problems()]
    assert all(len(set(each.puzzles)) == len(set(map(str, asked))) for each in rows.values())
    beam, vote, chain = rows["beam", 8], rows["vote", 8], rows[SEARCHES[-1], 8]
    assert beam.models["prm"].startswith("simulated:simulated-verifier@")
    assert set(vote.models) == {"policy"}
    assert set(chain.models) == {"policy", "prm", "reviser"}
    assert beam.winner_score is not None and 0 < beam.winner_score < 1
    assert vote.winner_score is None and vote.winner_tokens is not None
    assert beam.winner_steps == pytest.approx(4.0, abs=2.0)
    assert chain.by_turn.shape == (4, 6)
    # The first attempt of the first chain is the first sample of all.
    assert np.array_equal(chain.by_turn[0], rows["sample", 8].correct)


def test_cells_of_other_temperatures_are_rows_of_their_own(tmp_path: Path) -> None:
    config = small(problems=2, temperatures=[0.5, 1.0], strategies=["vote"])
    run(config, tmp_path / "run", engine=engine(), task=Steps(), virtual=True)
    save(list(rows_of(tmp_path / "run")), tmp_path)
    assert [each.strategy for each in load(tmp_path)] == ["vote", "vote, T=0.5"]


def test_a_cell_with_answers_that_have_no_verdict_gives_no_row(tmp_path: Path) -> None:
    class Unsure(Steps):
        def grade(self, problem: Problem, answer: str | None) -> Grade:
            raise GradeError("cannot be read")

    run(small(problems=2), tmp_path, engine=engine(), task=Unsure(), virtual=True)
    with pytest.raises(InputError, match=r"without a verdict \(2 grader_error of 2\)"):
        list(rows_of(tmp_path))


def test_greedy_decoding_has_a_row_of_one_sample(tmp_path: Path) -> None:
    config = small(problems=2, strategies=["greedy", "vote"])
    run(config, tmp_path, engine=engine(), task=Steps(), virtual=True)
    found = {each.strategy: each for each in rows_of(tmp_path)}
    assert set(found) == {"greedy", "vote"}
    assert (found["greedy"].n, found["greedy"].problems) == (1, 2)


def test_a_cell_with_failures_gives_no_row(tmp_path: Path) -> None:
    broken = engine(faults=Faults(rates={Fault.ENDPOINT: 1.0}))
    ended = run(small(problems=2), tmp_path, engine=broken, task=Steps(), virtual=True)
    assert ended.failed
    with pytest.raises(InputError, match="2 of 2 results have failures, as in"):
        list(rows_of(tmp_path))


def test_a_strategy_of_another_version_is_no_strategy_of_the_callers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(problems=2, strategies=["vote(flight=2)"])
    run(config, tmp_path, engine=engine(), task=Steps(), virtual=True)

    def later(spec: str) -> Strategy:
        raise SpecError(f"unknown parameter in {spec}")

    monkeypatch.setattr("mull.report.cells.load_strategy", later)
    with pytest.raises(InputError, match=r"vote\(flight=2\) was recorded by another version"):
        list(rows_of(tmp_path))


def test_an_unfinished_cell_gives_no_row(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        list(rows_of(tmp_path))
