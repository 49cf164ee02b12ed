"""Laws of submissions: always valid, scored both ways, combined as in the vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mull.errors import InputError
from mull.tasks.arc import submission
from mull.tasks.arc.grids import Grid, Pair, Puzzle, puzzle_of
from mull.tasks.arc.submission import Submission

A, B, C = ((1,),), ((2,),), ((3,),)


def puzzle(id: str, *outputs: Grid | None) -> Puzzle:
    return Puzzle(id, (Pair(A, A),), tuple(Pair(A, output) for output in outputs))


PUZZLES = [puzzle("p", A, B), puzzle("q", C)]


def file(tmp_path: Path, value: Any) -> str:
    path = tmp_path / "submission.json"
    path.write_text(json.dumps(value))
    return str(path)


def attempts(*pairs: tuple[Any, Any]) -> list[dict[str, Any]]:
    return [{"attempt_1": one, "attempt_2": two} for one, two in pairs]


def test_every_test_input_has_two_attempts(tmp_path: Path) -> None:
    path = str(tmp_path / "x.json")
    submission.write(path, {"p": ((A,), ())}, PUZZLES)
    assert json.loads(Path(path).read_text()) == {
        "p": attempts(([[1]], [[0]]), ([[0]], [[0]])),
        "q": attempts(([[0]], [[0]])),
    }
    assert submission.check(path, PUZZLES).problems == ()
    assert submission.read(path, filler_is_none=True) == submission.complete(
        {"p": ((A,), ())}, PUZZLES
    )


def test_the_score_counts_pairs_and_whole_puzzles() -> None:
    made: Submission = {"p": ((B, A), (A, A)), "q": ((C, None),)}
    score = submission.score(made, PUZZLES)
    assert score.solved == {"p": 0.5, "q": 1.0}
    assert (score.fractional.value, score.all_pairs.value) == (0.75, 0.5)
    assert score.fractional.n == 2


def test_a_third_attempt_and_a_missing_puzzle_count_nothing() -> None:
    assert submission.score({"q": ((A, B, C),)}, PUZZLES).solved == {"p": 0.0, "q": 0.0}


def test_nothing_to_score() -> None:
    with pytest.raises(InputError, match="no puzzles"):
        submission.score({}, [])
    with pytest.raises(InputError, match="p: test 0 has no output"):
        submission.score({}, [puzzle("p", None)])


def test_a_submission_for_other_puzzles_is_refused(tmp_path: Path) -> None:
    path = file(tmp_path, {"x": attempts(([[1]], [[1]]))})
    with pytest.raises(InputError, match=r"other puzzles: it has 1 puzzles, as 'x'.*as 'p'"):
        submission.check(path, PUZZLES)
    with pytest.raises(InputError, match="no puzzle at all"):
        submission.check(file(tmp_path, {}), PUZZLES)
    with pytest.raises(InputError, match="expected an object"):
        submission.check(file(tmp_path, []), PUZZLES)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"p": attempts(([[1, 2], [3]], [[1]]), ([[1]], [[1]]))}, "p: test 0: attempt_1: rows of"),
        ({"p": attempts(([[1]], [[10]]), ([[1]], [[1]]))}, "p: test 0: attempt_2: expected colour"),
        ({"p": attempts(([[1]], [[1]]))}, "p: 1 test pairs; expected 2"),
        ({"p": [{"attempt_1": [[1]]}, {}]}, "p: test 0: no attempt_2"),
        ({"p": [7, {}]}, "p: test 0: expected attempt_1 and attempt_2, not 7"),
        ({"p": 7}, "p: expected a list of test pairs, not 7"),
        ({"p": [{"guess": []}, {}]}, "p: test 0: unknown field 'guess'"),
        ({"p": [{"attempt_3": []}, {}]}, "p: test 0: attempt_3: expected 2 attempts"),
        ({"p": attempts(([[1]], [[1]]), ([[1]], [[1]])), "z": 1}, "'z': no such puzzle"),
        ({"p": attempts(([[1]], [[1]]), ([[1]], [[1]])), "q": []}, "q: 0 test pairs; expected 1"),
    ],
)
def test_what_is_wrong_is_named_and_the_rest_goes_on(
    tmp_path: Path, value: dict[str, Any], said: str
) -> None:
    path = file(tmp_path, {"q": attempts(([[3]], [[0]]))} | value)
    checked = submission.check(path, PUZZLES)
    assert any(said in line for line in checked.problems), checked.problems
    assert all(line.startswith(path) for line in checked.problems)
    assert set(checked.submission) == {"p", "q"}
    assert [len(pairs) for pairs in checked.submission.values()] == [2, 1]
    solved = submission.score(checked.submission, PUZZLES).solved
    assert solved["q"] == (0.0 if value.get("q") == [] else 1.0)


def test_a_missing_puzzle_is_said(tmp_path: Path) -> None:
    checked = submission.check(file(tmp_path, {"q": attempts(([[3]], [[0]]))}), PUZZLES)
    assert len(checked.problems) == 1
    assert "p: no answer" in checked.problems[0]


def test_reading_stops_at_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="p: test 0: attempt_2: expected colours"):
        submission.read(file(tmp_path, {"p": attempts(([[1]], [[10]]))}))
    assert submission.read(file(tmp_path, {"p": attempts(([[0]], []))})) == {
        "p": ((((0,),), None),)
    }


def test_answers_for_what_is_not_there() -> None:
    with pytest.raises(InputError, match="x: answers for a puzzle"):
        submission.complete({"x": ((A,),)}, PUZZLES)
    with pytest.raises(InputError, match="q: answers for 2 test pairs; it has 1"):
        submission.complete({"q": ((A,), (A,))}, PUZZLES)


def test_combine_of_the_vectors(shared_data: Path) -> None:
    cases = json.loads((shared_data / "arc" / "vectors.json").read_text())["combine"]
    assert len(cases) >= 7
    for case in cases:
        one, two, expected = (_answers(case[name]) for name in ("sub_1", "sub_2", "result"))
        prefer = case["prefer_second_on_attempt_2"]
        assert submission.combine(one, two, prefer) == expected, case


@pytest.mark.parametrize("prefer", [True, False])
@pytest.mark.parametrize(
    ("one", "two", "preferred", "kept"),
    [
        ((A, None), (B, None), (A, B), (A, B)),
        ((A, None), (A, B), (A, B), (A, B)),
        ((A, C), (B, None), (A, B), (A, C)),
        ((A, C), (A, B), (A, B), (A, C)),
        ((A, C), (None, None), (A, C), (A, C)),
        ((None, None), (A, B), (A, B), (A, B)),
        ((A, C), (A, None), (A, C), (A, C)),
        ((None, C), (None, B), (None, B), (None, B)),
    ],
)
def test_combine(one: Any, two: Any, preferred: Any, kept: Any, prefer: bool) -> None:
    made = submission.combine({"p": (one,)}, {"p": (two,)}, prefer)
    assert made == {"p": (preferred if prefer else kept,)}


def test_combine_takes_each_solvers_own_puzzles() -> None:
    made = submission.combine({"b": ((A,),)}, {"a": ((A, B),)})
    assert made == {"b": ((A, None),), "a": ((A, B),)}
    with pytest.raises(InputError, match="p: 1 test pairs in the first"):
        submission.combine({"p": ((A, B),)}, {"p": ((A, B), (A, B))})


one_grid = st.one_of(st.none(), st.sampled_from([A, B, C]))
pair = st.tuples(one_grid, one_grid)


@given(pair, pair, st.booleans())
def test_a_combination_never_loses_the_first_attempt(one: Any, two: Any, prefer: bool) -> None:
    ((made,),) = submission.combine({"p": (one,)}, {"p": (two,)}, prefer).values()
    assert made[0] == (one[0] if one[0] is not None else two[0])
    assert set(made) <= {*one, *two, None}
    if one[0] is not None and one[0] != one[1]:
        assert made[1] is None or made[1] != made[0]
        assert (made[1] is None) <= (one[1] is None)


def test_parts_one_after_the_other() -> None:
    made = submission.concatenate([{"p": ((A, None),)}, {"p": ((B,),), "q": ((C,),)}])
    assert made == {"p": ((A, None, B),), "q": ((C,),)}
    with pytest.raises(InputError, match="p: 1 and 2 test pairs"):
        submission.concatenate([{"p": ((A,),)}, {"p": ((A,), (A,))}])


def test_the_form_of_2020_comes_back(tmp_path: Path) -> None:
    made: Submission = {"p_x": ((((1, 2), (3, 4)), None), (A, B)), "q": ((C, C),)}
    path = str(tmp_path / "x.csv")
    submission.write_csv(path, made)
    text = Path(path).read_text()
    assert text.splitlines()[:3] == ["output_id,output", "p_x_0,|12|34| |0|", "p_x_1,|1| |2|"]
    assert submission.without_filler(submission.read_csv(path)) == made


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("output_id,output\np,|1|\n", "2: output_id 'p'"),
        ("output_id,output\np_0,|1|\np_0,|1|\n", "3: p: test 0 is given twice"),
        ("output_id,output\np_1,|1|\n", r"p: test pairs \[1\]"),
        ("output_id,output\np_0,12\n", "2: p: output '12'"),
        ("output_id,output\np_0,|12|3|\n", "2: p: rows of 2 and 1"),
        ("output_id,output\np_0,|1a|\n", "2: p: expected colours"),
        ("output_id,output\np_0\n", "2: 1 fields"),
    ],
)
def test_a_bad_line_of_the_form_of_2020(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        submission.read_csv(str(path))
    with pytest.raises(InputError, match="No such file"):
        submission.read_csv(str(tmp_path / "absent"))


def test_the_truth_scores_everything(shared_data: Path) -> None:
    paths = sorted((shared_data / "arc" / "ARC-AGI-1").rglob("evaluation/*.json"))[:20]
    puzzles = [puzzle_of(path.stem, json.loads(path.read_text())) for path in paths]
    truth = {each.id: [(pair.output,) for pair in each.test] for each in puzzles}
    score = submission.score(truth, puzzles)
    assert score.fractional.value == score.all_pairs.value == (1.0 if puzzles else None)


def _answers(table: Any) -> Submission:
    return {
        id: tuple(
            tuple(tuple(map(tuple, grid)) or None for grid in each.values()) for each in pairs
        )
        for id, pairs in table.items()
    }
