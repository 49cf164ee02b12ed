"""What scores are worth: the records' own scores and grades, ranked, held against the diagonal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.report.invented import cell, run
from tests.runs.world import Steps, engine, small

from mull.metrics import Pool
from mull.report import Cell, Runs, Sample, study_all, write_report
from mull.report.browser import TextBudget
from mull.report.worth import Worth, figure, tables, worths
from mull.runs import Records
from mull.runs import run as run_config
from mull.verifiers.calibration import (
    Labelled,
    auc,
    auc_within,
    calibration_error,
    errors_at,
    fit_neutral,
    reliability,
    votes_right,
)

pytestmark = pytest.mark.timeout(30)


def scored(
    given: Cell, name: str = "prm", score: Callable[[float], float] = lambda p: p, seed: int = 0
) -> Cell:
    """The cell with a verifier's scores that know a little: ``score`` of a number in 0..1."""
    draw = np.random.default_rng(seed)

    def told(sample: Sample) -> Sample:
        if sample.answer is None:
            return sample
        known = 1 / (1 + np.exp(-draw.normal(1.0 if sample.correct else -1.0, 1.0)))
        return replace(sample, scores={**sample.scores, name: score(float(known))})

    problems = tuple(replace(p, samples=tuple(map(told, p.samples))) for p in given.problems)
    return replace(given, problems=problems)


def found(*cells: Cell) -> list[Worth]:
    studies = study_all([run(*cells)], TextBudget(), resamples=50, draws=50)
    return worths([study.line for study in studies], 50)


def test_it_is_said_of_the_scores_and_grades_of_the_records(tmp_path: Path) -> None:
    given = small(
        strategies=["best-of-n(verifier=prm)", "vote"], verifiers={"prm": "simulated"}, seeds=[0, 1]
    )
    run_config(given, tmp_path, engine=engine(), task=Steps(), virtual=True)
    with Runs([tmp_path]) as opened, Records(tmp_path) as records:
        studies = study_all(opened.runs, TextBudget(), resamples=50, draws=50)
        rows = [
            (candidate.scores["prm"], candidate.correct is True, result.position)
            for each in records.cells
            for result in records.results(each)
            for candidate in result.candidates
            if "prm" in candidate.scores
        ]
    (only,) = worths([study.line for study in studies], 50)
    direct = Labelled.of(*(list(column) for column in zip(*rows, strict=True)))
    assert (only.score, len(only.given.scores)) == ("prm", len(rows))
    assert only.right.value == pytest.approx(direct.right.mean())
    assert only.pooled.value == auc(direct.scores, direct.right)
    assert only.within == auc_within(direct, 50)
    assert only.within.n <= 12, "a problem is one over its seeds"
    assert only.probable is not None
    assert only.probable.curve == reliability(direct, resamples=50)
    assert only.probable.error == calibration_error(only.probable.curve)
    assert only.probable.errors == errors_at(direct, 0.5, 50)


def test_a_vote_is_judged_on_problems_that_the_neutral_score_was_not_fitted_on() -> None:
    given = scored(cell(40, 8))
    pools = [
        Pool(
            np.array([s.group for s in p.samples]),
            np.array([s.correct is True for s in p.samples]),
            np.array([s.scores["mean_logprob"] for s in p.samples]),
            np.array([s.scores.get("prm", np.nan) for s in p.samples]),
        )
        for p in given.problems
    ]
    (only,) = found(given)
    assert only.probable is not None and only.probable.votes is not None
    votes = only.probable.votes
    halves = [pools[0::2], pools[1::2]]
    right = [votes_right(mine, fit_neutral(other)).logit for mine, other in (halves, halves[::-1])]
    assert votes.logit.value == pytest.approx(np.concatenate(right).mean())
    assert votes.neutral == fit_neutral(pools)
    assert votes.score.value == pytest.approx(votes_right(pools, 0.5).score.mean())
    assert votes.majority.n == 40


def test_a_score_outside_0_to_1_is_ranked_only_and_draws_no_curve() -> None:
    (plain,), (far,) = found(scored(cell())), found(scored(cell(), score=lambda p: 9 * p - 5))
    assert plain.probable is not None
    assert (far.probable, far.pooled.value) == (None, plain.pooled.value)
    assert figure([far]) is None
    assert [table.name for table in tables([far])] == ["scores"]
    assert tables([far])[0].rows[0][-3:] == (None, None, None)


def test_equal_scores_of_equal_samples_stand_once_and_others_apart() -> None:
    same = [scored(cell(strategy=f"weighted-vote(n={n})", independent=False)) for n in (8, 9)]
    other = scored(cell(strategy="best-of-n(verifier=orm)"), "orm", seed=1)
    assert [each.score for each in found(*same, other)] == ["prm", "orm"]
    later = scored(cell(strategy="weighted-vote(n=9)", independent=False), seed=2)
    assert [each.score for each in found(same[0], later)] == ["prm", "prm"]


@pytest.mark.parametrize("right", [True, False])
def test_without_both_kinds_there_is_no_rank_and_no_number_is_invented(right: bool) -> None:
    given = scored(cell(6, 4))
    one_kind = tuple(
        replace(p, samples=tuple(replace(s, correct=right) for s in p.samples))
        for p in given.problems
    )
    (table, _) = tables(found(replace(given, problems=one_kind)))
    (row,) = table.rows
    assert row[4:6] == (None, None)
    assert (row[7] is None) is right
    assert (row[8] is None) is not right


def test_the_report_has_a_section_where_there_are_scores_and_none_where_not(tmp_path: Path) -> None:
    bare, told = tmp_path / "bare", tmp_path / "told"
    hostile = scored(cell(12, 4, strategy="beam"), "<script>alert(1)</script>")
    for out, cells in ((bare, (cell(12, 4),)), (told, (scored(cell(12, 4)), hostile))):
        write_report([run(*cells)], out, resamples=20, draws=20)
    files = {str(path.relative_to(told)) for path in told.rglob("*.*")}
    new = files - {str(path.relative_to(bare)) for path in bare.rglob("*.*")}
    assert new == {
        *(f"tables/{name}.{end}" for name in ("scores", "votes_by_score") for end in ("md", "csv")),
        *(f"plots/reliability.{end}" for end in ("png", "svg")),
    }
    page = (told / "report.html").read_text(encoding="utf-8")
    assert page.count('id="worth"') == 1
    assert "<script>alert" not in page
    assert "worth" not in (bare / "report.html").read_text(encoding="utf-8")
