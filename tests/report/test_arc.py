"""Records of grid puzzles → predictions, attempts by the cell's own selection, tables, gallery."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.report.invented import NO_SCRIPT
from tests.report.invented import run as invented
from tests.tasks.arc.world import random_puzzle

from mull.metrics import Interval
from mull.report.arc import COPY, FAILED, NO_INVERSE, TOO_LONG, SolvedCell, solved_of
from mull.report.arc_tables import label, steps, tables
from mull.report.data import Cell, ProblemResult, Run, Sample
from mull.report.tables import Value, markdown
from mull.report.write import write_report
from mull.selection import majority
from mull.tasks.arc.grids import as_text, from_text
from mull.tasks.arc.task import ArcTask
from mull.tasks.arc.vote import attempts as attempts_of
from mull.tasks.arc.vote import by_votes_and_likelihood
from mull.types import Candidate, Problem, Usage

pytestmark = pytest.mark.timeout(30)
TASK = ArcTask()
GRIDS = ("11\n22", "33\n44", "5", "66")


def sample(
    number: int, answer: str | None, gold: str | None, text: str = "", **scores: float
) -> Sample:
    return Sample(
        key=(number, 0),
        text=text or (answer or "") + "x",
        answer=answer,
        group=-1 if answer is None else GRIDS.index(answer),
        correct=answer == gold,
        outcome="",
        unanswered=None if answer is not None else "malformed",
        usage=Usage(generated=5),
        scores={"logprob": -1.0, "mean_logprob": -0.2, **scores},
        tokens=5,
    )


def result(
    problem: Problem, samples: Sequence[Sample], answer: str | None, **more: object
) -> ProblemResult:
    made = ProblemResult(
        problem.id, problem.prompt.plain, problem.answer, 1, tuple(samples), answer,
        answer == problem.answer, meta=problem.meta,
    )  # fmt: skip
    return replace(made, **more)  # type: ignore[arg-type]


def one_problem(seed: int, gold: str = GRIDS[0]) -> Problem:
    (found,) = TASK.problems_of(random_puzzle(seed))
    return replace(found, answer=gold)


def run(*cells: Cell, task: str = "arc", name: str = "puzzles") -> Run:
    return replace(invented(), task=task, cells=cells, name=name, ledger=())


def cell(
    results: Sequence[ProblemResult], strategy: str = "airv(n=4)", temperature: float = 0.0
) -> Cell:
    return Cell(strategy, "", 0, results, {"temperature": temperature}, independent=False)


def only(*results: ProblemResult, strategy: str = "airv(n=4)", task: str = "arc") -> SolvedCell:
    (found,) = solved_of(run(cell(results, strategy), task=task))
    return found


@pytest.mark.parametrize(
    ("strategy", "votes"),
    [
        ("airv(n=4)", True),
        ("airv(n=4, keep=likeliest, per_view=2)", True),
        ("airv(n=4, rank=views)", False),
        ("airv(n=4, rank=select)", False),
        ("airv(n=10, threshold=0.1)", False),
        ("ttft(n=4)", True),
        ("ttft(n=4, then=vote)", True),
        ("ttft(n=4, rank=views)", False),
        ("vote(n=4)", True),
        ("greedy", False),
        ("gone.py:Mine", False),
    ],
)
def test_what_is_decided_by_votes_alone_has_an_n_scaling(strategy: str, votes: bool) -> None:
    samples = [sample(i, answer, GRIDS[0]) for i, answer in enumerate(GRIDS)]
    made = only(result(one_problem(0), samples, GRIDS[0]), strategy=strategy)
    assert made.votes == votes
    assert ("arc_n_scaling" in [table.name for table in tables([made])]) == votes


def test_attempts_are_the_two_best_of_a_vote() -> None:
    problem = one_problem(0)
    answers = [GRIDS[1], GRIDS[0], GRIDS[1], GRIDS[2]]
    made = only(result(problem, [sample(i, a, GRIDS[0]) for i, a in enumerate(answers)], GRIDS[1]))
    ((attempts,),) = made.answers.values()
    assert attempts == (from_text(GRIDS[1]), from_text(GRIDS[0]))
    assert made.score.fractional.value == 1.0
    assert made.first == {problem.id[:-2]: ((from_text(GRIDS[1]), None),)}


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.sampled_from([*GRIDS, None]), st.integers(0, 2)), min_size=1, max_size=7),
    st.booleans(),
)
def test_the_votes_and_the_n_scaling_break_ties_alike(
    drawn: list[tuple[str | None, int]], known: bool
) -> None:
    gold = GRIDS[0]
    samples = [
        # Few likelihoods and few tokens: equal votes and equal means are the rule here.
        sample(i, answer, gold, logprob=-1.0 * nats, mean_logprob=-0.5 * nats)
        for i, (answer, nats) in enumerate(drawn)
    ]
    if not known:
        samples[-1] = replace(samples[-1], scores={})
    problem = one_problem(0, gold)
    chosen = majority([Candidate(s.key, s.text, s.answer, scores=s.scores) for s in samples])
    (solved,) = solved_of(run(cell([result(problem, samples, chosen.answer)], "vote(n=7)")))
    (pair,) = solved.graded.pairs
    (puzzle,) = solved.scored
    ranking = by_votes_and_likelihood(solved.predictions)
    assert [as_text(each.grid) for each in ranking] == [each.answer for each in chosen.ranking]
    assert [each.votes for each in ranking] == [each.votes for each in chosen.ranking]
    assert pair.voted == tuple(grid == puzzle.test[0].output for grid in attempts_of(ranking))


def test_the_last_row_of_the_n_scaling_is_the_row_of_the_votes() -> None:
    """The likelier answer comes later, in tokens that the endpoint counts in its own way."""
    answers = [(GRIDS[1], -4.0), (GRIDS[0], -1.0), (GRIDS[2], -2.0)]
    samples = [
        replace(sample(i, a, GRIDS[0], logprob=lp, mean_logprob=lp / 2), tokens=9 - 4 * i)
        for i, (a, lp) in enumerate(answers)
    ]
    solved = solved_of(run(cell([result(one_problem(0), samples, GRIDS[0])], "vote(n=3)")))
    made = {table.name: table for table in tables(solved, tries=2)}
    titles = [column.title for column in made["arc_votes"].columns]
    vote = dict(zip(titles, made["arc_votes"].rows[0], strict=True))
    titles = [column.title for column in made["arc_n_scaling"].columns]
    last = dict(zip(titles, made["arc_n_scaling"].rows[-1], strict=True))
    assert last["n"] == 3
    assert _value(last["vote_1 %"]) == _value(vote["attempt 1 %"]) == 1.0
    assert _value(last["vote_2 %"]) == _value(vote["vote_2 %"]) == 1.0


def _value(cell: Value) -> float:
    assert isinstance(cell, Interval)
    return cell.value


def test_attempts_are_the_two_best_of_the_experts_where_they_chose() -> None:
    scored = [(GRIDS[1], -5.0), (GRIDS[1], -5.0), (GRIDS[2], -1.0), (GRIDS[0], -3.0)]
    samples = [sample(i, a, GRIDS[0], views=s) for i, (a, s) in enumerate(scored)]
    strategy = "airv(n=4, rank=views)"
    made = only(result(one_problem(0), samples, GRIDS[2]), strategy=strategy)
    ((attempts,),) = made.answers.values()
    assert attempts == (from_text(GRIDS[2]), from_text(GRIDS[0]))
    assert not made.votes
    # What could not be scored stands behind what could.
    samples = [sample(0, GRIDS[1], GRIDS[0]), sample(1, GRIDS[2], GRIDS[0], views=-1.0)]
    made = only(result(one_problem(0), samples, GRIDS[2]), strategy=strategy)
    ((attempts,),) = made.answers.values()
    assert attempts == (from_text(GRIDS[2]), from_text(GRIDS[1]))


def test_where_the_strategy_had_no_answer_nothing_is_sent() -> None:
    samples = [sample(0, GRIDS[0], GRIDS[0])]
    made = only(result(one_problem(0), samples, None))
    assert list(made.answers.values()) == [((None, None),)]
    assert made.score.fractional.value == 0.0


def test_predictions_keep_their_view_and_their_failure() -> None:
    problem = one_problem(3)
    keys = TASK.keys(problem, 5)
    copy = as_text(random_puzzle(3).test[0].input)
    samples = [
        sample(0, GRIDS[0], GRIDS[0]),
        sample(1, None, GRIDS[0], text="12\n3"),
        replace(sample(2, None, GRIDS[0], text=copy), unanswered="no_answer"),
        replace(sample(3, None, GRIDS[0], text="12\n3"), unanswered="truncated"),
        sample(4, None, GRIDS[0], text="12\n34"),
        replace(sample(0, None, GRIDS[0]), key=(-1, 0), unanswered="failed"),
    ]
    made = only(result(problem, samples, GRIDS[0])).predictions
    assert [p.failure for p in made] == [None, "ragged", COPY, "truncated", NO_INVERSE, FAILED]
    assert [p.view for p in made] == [*keys, ""]
    assert [p.mean_logprob for p in made[:1]] == [-0.2]
    greedy = only(result(problem, samples[:1], GRIDS[0]), strategy="greedy").predictions
    assert [p.view for p in greedy] == ["same"]


def test_a_puzzle_that_does_not_fit_is_a_failure_and_is_listed() -> None:
    problem = one_problem(4)
    lost = [replace(sample(0, None, "5"), key=(-1, i), unanswered="failed") for i in range(4)]
    made = only(result(problem, lost, None, failures={"ContextError": 4}))
    assert made.too_long == (problem.id,)
    assert [p.failure for p in made.predictions] == [TOO_LONG] * 4
    assert made.score.fractional.value == 0.0
    assert made.graded.summary["unanswered"].value == 1.0


def test_puzzles_that_are_not_done_are_not_graded() -> None:
    puzzle = random_puzzle(5, tests=2)
    first, second = TASK.problems_of(puzzle)
    samples = [sample(0, GRIDS[0], GRIDS[0])]
    assert only(result(first, samples, GRIDS[0])).puzzles == ()
    whole = only(result(first, samples, GRIDS[0]), result(second, samples, GRIDS[0]))
    assert [p.id for p in whole.puzzles] == [puzzle.id]
    assert whole.puzzles[0].test == puzzle.test


def test_another_task_is_none_of_ours() -> None:
    assert solved_of(invented()) == []
    assert solved_of(run(cell([]), task="arc(nonsense=1)")) == []


def cells() -> list[Cell]:
    problems = [one_problem(seed) for seed in range(6)]
    right, wrong = GRIDS[0], GRIDS[1]

    def made(problem: Problem, answers: Sequence[str | None]) -> ProblemResult:
        samples = [sample(i, a, right, views=-1.0 if a == right else -2.0)
                   for i, a in enumerate(answers)]  # fmt: skip
        return result(problem, samples, right if right in answers else wrong)

    few = [made(p, [wrong, right if i % 2 else wrong]) for i, p in enumerate(problems)]
    every = [made(p, [wrong, right]) for p in problems]
    single = [made(p, [wrong]) for p in problems]
    return [
        cell(single, "greedy"),
        cell(few, "airv(n=2)"),
        cell(few, "airv(n=2)", temperature=0.5),
        cell(every, "airv(n=2, rank=views)"),
        cell(every, "airv(n=20, rank=views, threshold=0.1)"),
    ]


def test_tables_stand_in_the_order_of_the_steps() -> None:
    solved = solved_of(run(*cells()))
    table = steps(solved)
    assert [row[0] for row in table.rows] == [
        "single prediction, T=0",
        "vote of 2 views, T=0",
        "vote of 2 views, T=0.5",
        "vote of 2 views, product of experts, T=0",
        "all answers of p ≥ 0.1 under 2 views, product of experts, T=0",
    ]
    scores = [row[1].value for row in table.rows]  # type: ignore[union-attr]
    assert scores == [0.0, 0.5, 0.5, 1.0, 1.0]
    gains = [None if row[2] is None else row[2].value for row in table.rows]  # type: ignore[union-attr]
    assert gains == [None, 0.5, 0.0, 0.5, 0.0]
    made = {table.name: table for table in tables(solved, tries=3)}
    assert list(made) == ["arc_steps", "arc_votes", "arc_n_scaling", "arc_sizes",
                          "arc_temperatures", "arc_failures"]  # fmt: skip
    assert [row[0] for row in made["arc_temperatures"].rows] == [0.0, 0.5]
    assert [row[0] for row in made["arc_n_scaling"].rows] == [1, 2]
    assert all(markdown(table) for table in made.values())


def test_without_a_greedy_cell_the_first_prediction_stands_for_it() -> None:
    solved = solved_of(run(cells()[1]))
    table = steps(solved)
    assert [row[0] for row in table.rows] == ["single prediction (the first)", "vote of 2 views"]
    assert table.rows[0][1].value == 0.0  # type: ignore[union-attr]
    assert label(solved[0]) == "vote of 2 views"


def test_cells_that_words_do_not_tell_apart_are_told_by_their_spec() -> None:
    (one,) = solved_of(run(cells()[1]))
    other = replace(one, strategy="airv(n=2, seed=1)")
    assert label(one, [one, other]) == f"vote of 2 views ({one.strategy})"
    assert label(other, [one, other]) == "vote of 2 views (airv(n=2, seed=1))"


def test_an_interval_that_does_not_exist_is_left_out() -> None:
    samples = [sample(0, GRIDS[1], GRIDS[0])]
    solved = solved_of(run(cell([result(one_problem(0), samples, GRIDS[1])])))
    table = next(t for t in tables(solved) if t.name == "arc_votes")
    (row,) = table.rows
    ratio = [column.title for column in table.columns].index("vote_2 / pass_n %")
    assert row[ratio] is None, "nothing divided by nothing"
    assert not any(isinstance(v, float) and math.isnan(v) for v in row)


HOSTILE = ["</script><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "\u2028{{7*7}}"]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    results = []
    for seed, text in enumerate(HOSTILE):
        good = sample(0, GRIDS[0], GRIDS[0])
        results.append(result(one_problem(seed), [good, sample(1, None, "5", text)], GRIDS[0]))
    out = tmp_path_factory.mktemp("report")
    return write_report([run(cell(results))], out, 50, 20).read_text(encoding="utf-8")


def test_the_gallery_has_every_puzzle_once_and_an_example_of_each_failure(page: str) -> None:
    data = json.loads(page.split('id="data">')[1].split("</script>", maxsplit=1)[0])
    assert [p["id"] for p in data["puzzles"]] == ["p0", "p1", "p2"]
    for at, problem in enumerate(data["cells"][0]["problems"]):
        grids, puzzle = problem["grids"], data["puzzles"][at]
        assert (grids["puzzle"], grids["index"], grids["truth"]) == (at, 0, GRIDS[0])
        assert (grids["attempts"], grids["top"]) == ([0], [[0, GRIDS[0]]])
        assert [kind[1:3] for kind in grids["bad"]] == [[1, HOSTILE[at]]]
        shown = random_puzzle(at)
        assert puzzle["train"] == [[as_text(p.input), as_text(p.output or ())] for p in shown.train]
        assert puzzle["test"] == [as_text(p.input) for p in shown.test]


def test_hostile_responses_are_data_and_no_markup(page: str) -> None:
    raw = page.split('id="data">')[1].split("</script>", maxsplit=1)[0]
    assert not set("<>&\u2028\u2029") & set(raw)
    assert page.count("<script") == 2
    script = page[page.rindex("<script>") :]
    assert not [word for word in NO_SCRIPT if word in script]


def test_a_page_without_puzzles_has_no_gallery(tmp_path: Path) -> None:
    page = write_report([invented()], tmp_path, 50, 20).read_text(encoding="utf-8")
    assert 'id="gallery"' not in page
    assert not re.search(r"const gallery = ", page)
