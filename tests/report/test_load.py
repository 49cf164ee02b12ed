"""A run's directory becomes a report: numbers as recorded, bytes that depend on the records."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path

import pytest
from tests.runs.world import Steps, engine, small

from mull.engines.simulated import Fault, Faults
from mull.errors import StoreError
from mull.report import Runs, contents, study_all, write_report
from mull.report.browser import TextBudget
from mull.report.trees import Grove
from mull.runs.records import Records
from mull.runs.run import Progress, run
from mull.store.schema import FILE
from mull.trees import Fate


def made(directory: Path, faults: Faults | None = None, slots: int = 8, **fields: object) -> Path:
    config = small(strategies=["vote", "greedy"], **fields)
    run(config, directory, engine=engine(slots=slots, faults=faults), task=Steps(), virtual=True)
    return directory


def test_the_report_says_what_the_records_say(tmp_path: Path) -> None:
    made(tmp_path / "run", seeds=[0, 1])
    with Runs([tmp_path / "run"]) as opened, Records(tmp_path / "run") as records:
        study = study_all(opened.runs, TextBudget(), resamples=50, draws=50)[0]
        cells = [cell for cell in records.cells if cell.strategy == "vote"]
        results = [result for cell in cells for result in records.results(cell)]
        right = [result.correct is True for result in results]
        assert study.accuracy.value == pytest.approx(sum(right) / len(right))
        assert study.points[-1].n == 4
        assert study.points[-1].scores["vote"].value == pytest.approx(study.accuracy.value)
        spent = sum(result.total.flops for result in results) / len(results)
        assert study.line.cost()["flops"] == pytest.approx(spent)
        first = opened.runs[0]
        assert first.config_hash == records.config_hash
        assert first.facts["seeds"] == "0, 1"
        votes = {f"vote · samples=4 · T=1 · seed {seed}" for seed in (0, 1)}
        assert {row.cell for row in first.ledger} == {"greedy · seed 0", "greedy · seed 1", *votes}
        assert "unfinished" not in first.facts


def test_a_cell_has_one_name_in_tables_ledger_and_trees(tmp_path: Path) -> None:
    given = small(strategies=["beam(verifier=prm)"], verifiers={"prm": "simulated"}, problems=2)
    run(given, tmp_path, engine=engine(), task=Steps(), virtual=True)
    grove = Grove()
    with Runs([tmp_path]) as opened:
        found = study_all(opened.runs, TextBudget(), resamples=50, draws=50, grove=grove)
        ledger = {row.cell for row in opened.runs[0].ledger}
    label = "beam(verifier=prm) · samples=4 · T=1"
    assert {study.line.label for study in found} == ledger == {label}
    assert [stand.label for stand in grove.stands()] == [label]


def test_budgets_that_differ_in_their_seventh_digit_are_two_series(tmp_path: Path) -> None:
    given = small(strategies=["vote(n=2)"], problems=2, samples=None, tokens=[1000001, 1000002])
    run(given, tmp_path, engine=engine(), task=Steps(), virtual=True)
    with Runs([tmp_path]) as opened:
        found = study_all(opened.runs, TextBudget(), resamples=50, draws=50)
    assert [(study.line.label, len(study.line.digests)) for study in found] == [
        ("vote(n=2) · tokens=1000001 · T=1", 1),
        ("vote(n=2) · tokens=1000002 · T=1", 1),
    ]


def test_a_strategy_costs_its_whole_bill_and_not_that_of_its_candidates(tmp_path: Path) -> None:
    """A search drops most of what it pays for; a judge and a verifier are paid as well."""
    given = small(
        strategies=["beam", "best-of-n(verifier=prm)", "filter-vote", "sample"],
        verifiers={"prm": "simulated"},
        engines={"judge": "simulated:echo"},
        problems=6,
        samples=8,
    )
    run(given, tmp_path, engine=engine(), task=Steps(), virtual=True)
    with Runs([tmp_path]) as opened, Records(tmp_path) as records:
        studies = study_all(opened.runs, TextBudget(), resamples=50, draws=50)
        for study, cell in zip(studies, records.cells, strict=True):
            paid = [result.total for result in records.results(cell)]
            cost = study.line.cost()
            assert cost["samples"] == 8, cell.strategy
            assert cost["tokens"] == pytest.approx(sum(each.tokens for each in paid) / 6)
            assert cost["flops"] == pytest.approx(sum(each.flops for each in paid) / 6)
    bills = {study.line.first.strategy: study.line.cost()["tokens"] for study in studies}
    assert all(bills["sample"] < bill for name, bill in bills.items() if name != "sample")


def test_failures_are_counted_by_type_and_no_score_is_taken_for_a_sample(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("def verifier(branch):\n    return None\n")
    given = small(
        strategies=["beam", "filter-vote"],
        verifiers={"prm": str(mine)},
        engines={"judge": "simulated:echo"},
        problems=6,
    )
    assert run(given, tmp_path / "run", engine=engine(), task=Steps(), virtual=True).failed == 12
    with Runs([tmp_path / "run"]) as opened, Records(tmp_path / "run") as records:
        beam, judged = study_all(opened.runs, TextBudget(), resamples=50, draws=50)
        table = contents.failure_types([beam, judged])
        counts = [sum(len(r.failures) for r in records.results(cell)) for cell in records.cells]
    assert [row[1:] for row in table.rows] == [
        ("ScoreError", counts[0], 6),
        ("NoVerdict", counts[1], 6),
    ]
    assert "failed" not in beam.line.first.reasons
    assert "failed" not in judged.line.first.reasons


@pytest.mark.slow
@pytest.mark.timeout(30)
def test_equal_records_give_equal_bytes(tmp_path: Path) -> None:
    # Other slots, another order of arrival, another folder: the same records.
    folders = [made(tmp_path / "a"), made(tmp_path / "b", slots=3)]
    reports = []
    for folder in folders:
        with Runs([folder]) as opened:
            write_report(opened.runs, folder / "report", resamples=50, draws=50)
        files = sorted((folder / "report").rglob("*.*"))
        reports.append({path.relative_to(folder): path.read_bytes() for path in files})
    different = {str(name) for name in reports[0] if reports[0][name] != reports[1].get(name)}
    assert reports[0].keys() == reports[1].keys()
    assert not different
    assert str(tmp_path).encode() not in reports[0][Path("report/report.html")]


def test_samples_that_did_not_come_count_as_unanswered_and_are_listed(tmp_path: Path) -> None:
    made(tmp_path / "run", faults=Faults(rates={Fault.CONNECTION: 0.2}))
    with Runs([tmp_path / "run"]) as opened:
        study = study_all(opened.runs, TextBudget(), resamples=50, draws=50)[0]
    digest = study.line.first
    assert digest.failures, "the faults reached the run"
    assert digest.reasons["failed"] >= len(digest.failures)
    assert digest.samples == 12 * 4
    assert study.points[-1].scores["vote"].n == 12


def test_an_attempt_that_did_not_come_is_unanswered_though_a_tree_has_it(tmp_path: Path) -> None:
    """No other path stood in for it, as one does in a search over steps."""
    given = small(
        strategies=[
            "revise(chains=2, reviser=policy, verifier=prm)",
            "self-refine",
            "speculative-rejection(alpha=0, chunk=20)",
        ],
        verifiers={"prm": "simulated"},
    )
    broken = engine(faults=Faults(rates={Fault.CONNECTION: 0.2}))
    run(given, tmp_path, engine=broken, task=Steps(), virtual=True)
    with Runs([tmp_path]) as opened:
        cells = [list(cell.problems) for cell in opened.runs[0].cells]
    for problems in cells:
        assert any(problem.failures for problem in problems)
        for problem in problems:
            assert len(problem.samples) == problem.asked == 4
            came = {node.key for node in problem.tree if node.fate is Fate.FINISHED}
            assert came == {s.key for s in problem.samples if s.unanswered != "failed"}


def test_what_interruptions_and_retries_cost_is_told(tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    def stop(progress: Progress) -> None:
        raise Enough

    config = small(strategies=["vote"])
    faults = Faults(chosen={1: Fault.CONNECTION})
    for on_progress in (stop, None, None):
        with suppress(Enough):
            run(
                config,
                tmp_path,
                engine=engine(faults=faults),
                task=Steps(),
                on_progress=on_progress,
                virtual=True,
            )
    with Runs([tmp_path]) as opened, Records(tmp_path) as records:
        (loaded,) = opened.runs
        table = contents.ledger(loaded)
        paid = [row for result in records.results(records.cells[0]) for row in result.spent]
        lost = records.waste()
    reasons = {row.reason for row in lost}
    assert {"interrupted", "tried again"} <= reasons <= {row[0] for row in table.rows}
    assert table.rows[-1][0] == "total"
    generated = [row.usage.generated for row in (*paid, *lost)]
    assert table.rows[-1][6] == sum(generated)
    assert table.rows[-1][3] == sum(r.completions for r in paid) + sum(r.count for r in lost)
    assert "tried again" in table.note
    assert loaded.facts["sessions"] == "3"


def test_what_a_killed_session_cost_is_said_to_be_unknown(tmp_path: Path) -> None:
    made(tmp_path)
    with Runs([tmp_path]) as opened:
        assert "sessions" not in opened.runs[0].facts
    connection = sqlite3.connect(tmp_path / FILE)
    connection.execute("UPDATE sessions SET ended = NULL, reason = NULL")
    connection.commit()
    connection.close()
    made(tmp_path)
    with Runs([tmp_path]) as opened:
        assert opened.runs[0].facts["sessions"].startswith("2, 1 without an end")


@pytest.mark.parametrize("table", ["problems", "results"])
def test_a_damaged_record_is_left_out_and_counted(table: str, tmp_path: Path) -> None:
    made(tmp_path, seeds=[0, 1])
    connection = sqlite3.connect(tmp_path / FILE)
    connection.execute(f"UPDATE {table} SET payload = 'x' WHERE position = 3")  # noqa: S608
    connection.commit()
    connection.close()
    hit = 1 if table == "problems" else 4
    with Runs([tmp_path]) as opened:
        (loaded,) = opened.runs
        assert f"{hit} damaged" in loaded.facts["damaged"]
        left = "44 of 48 results so far" if table == "results" else None
        assert loaded.facts.get("unfinished") == left
        for cell in loaded.cells:
            assert len(list(cell.problems)) == 11
        assert study_all(opened.runs, TextBudget(), resamples=50, draws=50)[0].points


def test_two_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    made(tmp_path / "run")
    with Runs([tmp_path / "run", tmp_path / "run"]) as opened:
        assert [run.name for run in opened.runs] == ["small", "small (2)"]


def test_a_folder_without_a_run_is_an_error_that_says_so(tmp_path: Path) -> None:
    made(tmp_path / "run")
    with pytest.raises(StoreError, match="holds no run"):
        Runs([tmp_path / "run", tmp_path])


@pytest.mark.parametrize(
    "damage",
    [
        "waste SET usage = 'x' || substr(usage, 2)",
        "waste SET usage = replace(usage, 'prompt', 'promqt')",
        """waste SET usage = replace(usage, '"prompt":', '"prompt":"1","x":')""",
        "waste SET usage = cast(x'ff' AS TEXT)",
        "waste SET completions = 'x'",
        "sessions SET dropped = 'x'",
        "sessions SET reason = cast(x'ff' AS TEXT)",
    ],
)
def test_a_damaged_row_without_a_hash_is_left_out_and_counted(damage: str, tmp_path: Path) -> None:
    faults = Faults(chosen={1: Fault.CONNECTION})
    made(tmp_path, faults=faults)
    made(tmp_path, faults=faults)  # tries the failed samples again
    with Records(tmp_path) as records:
        rows = {"waste": len(records.waste()), "sessions": len(records.sessions())}
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute(f"UPDATE {damage} WHERE id = 1")
    connection.close()
    with Runs([tmp_path]) as opened:
        assert opened.runs[0].facts["damaged"].startswith("1 damaged records are left out")
    with Records(tmp_path) as records:
        left = {"waste": len(records.waste()), "sessions": len(records.sessions())}
    rows[damage.split(maxsplit=1)[0]] -= 1
    assert left == rows
