"""Laws of the two prediction files: written and read back, and what is wrong is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mull.errors import InputError
from mull.tasks.arc.augment import Augmentation
from mull.tasks.arc.changes import Symmetry
from mull.tasks.arc.predictions import (
    UNSTATED,
    GridReader,
    Prediction,
    field_augmentation,
    load,
    read_predictions,
    read_task_results,
    view_of_field,
    write_predictions,
    write_task_results,
)

A, B = ((1, 2), (3, 4)), ((5,),)


def made() -> list[Prediction]:
    return [
        Prediction("p", 0, "flip.rot1.colours0132456789", A, None, " 12\n34", -1.5, 6, "ask"),
        Prediction("p", 0, "key.r1", None, "ragged", " 12\n3", -2.0, 5, "ask"),
        Prediction("p", 1, "", B, None, "5", None, None, ""),
    ]


def test_predictions_are_written_as_attempts(tmp_path: Path) -> None:
    path = str(tmp_path / "x.json")
    write_predictions(path, made(), {"q": 1})
    assert json.loads(Path(path).read_text()) == {
        "q": [{}],
        "p": [{"attempt_1": [[1, 2], [3, 4]], "attempt_2": []}, {"attempt_1": [[5]]}],
    }
    back = read_predictions(path)
    assert [(each.puzzle, each.index, each.view, each.grid) for each in back] == [
        ("p", 0, "attempt_1", A),
        ("p", 0, "attempt_2", None),
        ("p", 1, "attempt_1", B),
    ]
    assert back[1].failure == UNSTATED


def test_task_results_have_the_eight_fields_and_come_back(tmp_path: Path) -> None:
    path = str(tmp_path / "x.json")
    write_task_results(path, made())
    rows = json.loads(Path(path).read_text())
    assert rows[0] == {
        "task_id": "p",
        "idx": 0,
        "data_augmentation_kwargs": {
            "hflip": True,
            "n_rot90": 1,
            "color_map": {str(c): {2: 3, 3: 2}.get(c, c) for c in range(10)},
        },
        "prompt": "ask",
        "grid": [[1, 2], [3, 4]],
        "response": " 12\n34",
        "cumulative_logprob": -1.5,
        "n_tokens": 6,
    }
    back = read_task_results(path)
    assert [each.failure for each in back] == [None, UNSTATED, None]
    for was, now in zip(made(), back, strict=True):
        for name in ("puzzle", "index", "view", "grid", "response", "logprob", "tokens", "prompt"):
            assert getattr(now, name) == getattr(was, name)
    assert [each.grid for each in load(path)] == [A, None, B]


def test_views_may_have_words_of_their_own(tmp_path: Path) -> None:
    path = str(tmp_path / "x.json")
    write_task_results(path, made()[1:2], lambda view: {"n_rot90": int(view[-1])})
    (back,) = read_task_results(path, lambda kwargs: f"key.r{kwargs['n_rot90']}")
    assert back.view == "key.r1"


@given(st.booleans(), st.integers(0, 3), st.permutations(range(10)))
def test_the_fields_augmentations_are_views(flip: bool, turns: int, colours: list[int]) -> None:
    view = str(Augmentation(Symmetry(flip, turns), tuple(colours)))
    assert view_of_field(json.loads(json.dumps(field_augmentation(view)))) == view


@pytest.mark.parametrize("view", ["", "external:x:1", "out-up2x2", "same"])
def test_other_views_come_back(view: str) -> None:
    assert view_of_field(field_augmentation(view)) == view


@pytest.mark.parametrize(
    "kwargs", [{"hflip": 3}, {"n_rot90": 7}, {"color_map": {"0": 1}}, {"zoom": 2}]
)
def test_an_unknown_augmentation_is_its_own_name(kwargs: dict[str, Any]) -> None:
    assert view_of_field(kwargs) == json.dumps(kwargs)


def test_attempts_are_read_by_number(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"p": [{"attempt_10": [[1]], "attempt_9": [[2]], "attempt_1": []}]}')
    assert [each.view for each in load(str(path))] == ["attempt_1", "attempt_9", "attempt_10"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"p": [', "1:8: malformed JSON"),
        ("", "malformed JSON"),
        ('{"p": [], "p": []}', "'p' is given twice"),
        ("[" * 100_000, "nested too deeply"),
        ("7", "expected an object of puzzles"),
        ('{"p": 3}', "p: expected a list of test pairs"),
        ('{"p": [[]]}', "p: test 0: expected an object of attempts"),
        ('{"p": [{"try_1": []}]}', "p: test 0: unknown field 'try_1'"),
        ('{"p": [{"attempt_1": [[1, 2], [3]]}]}', "p: test 0: attempt_1: rows of 2 and 1 cells"),
        ('{"p": [{}, {"attempt_2": [[10]]}]}', "p: test 1: attempt_2: expected colours 0..9"),
        ('{"p": [{"attempt_1": [[1]], "attempt_2": [[true]]}]}', "attempt_2: expected colours"),
        ('{"p": [{"attempt_1": [[1]], "attempt_2": [[1.0]]}]}', "attempt_2: expected colours"),
        ('{"p": [{"attempt_1": "12"}]}', "attempt_1: expected a list of rows"),
        ('{"p": [{"attempt_1": [[]]}]}', "attempt_1: expected rows of cells"),
        ('[{"idx": 0, "grid": []}]', "row 0: task_id"),
        ('[{"task_id": "p", "idx": -1, "grid": []}]', "row 0: p: idx"),
        ('[{"task_id": "p", "idx": 0}]', "row 0: p: no grid"),
        ('[{"task_id": "p", "idx": 0, "grid": [[11]]}]', "p: grid: expected colours 0..9"),
        ('[{"task_id": "p", "idx": 0, "grid": [], "response": 1}]', "p: response"),
        ('[{"task_id": "p", "idx": 0, "grid": [], "n_tokens": 1.5}]', "p: n_tokens"),
        ('[{"task_id": "p", "idx": 0, "grid": [], "cumulative_logprob": "x"}]', "cumulative"),
        ("[1]", "row 0: expected an object"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load(str(path))
    assert str(caught.value).startswith(str(path))
    assert said in str(caught.value)


def test_files_that_are_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        load(str(tmp_path / "absent.json"))
    (tmp_path / "x.json").write_bytes(b'{"\xff": 1}')
    with pytest.raises(InputError, match="not UTF-8 at byte 2"):
        load(str(tmp_path / "x.json"))


def test_a_log_probability_without_a_word_in_json_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    row = {"task_id": "p", "idx": 0, "grid": [[1]], "cumulative_logprob": float("nan")}
    path.write_text(json.dumps([row]))
    assert load(str(path))[0].logprob is None


def test_a_prediction_is_a_grid_or_a_failure() -> None:
    with pytest.raises(ValueError, match="either"):
        Prediction("p", 0, "", None)
    with pytest.raises(ValueError, match="either"):
        Prediction("p", 0, "", A, "ragged")
    with pytest.raises(ValueError, match="finite"):
        Prediction("p", 0, "", A, logprob=float("-inf"))
    assert Prediction("p", 1, "", A).problem == "p/1"
    assert Prediction("p", 1, "", A, logprob=-1.0, tokens=0).mean_logprob is None


cells: Any = st.one_of(st.integers(-1, 11), st.booleans(), st.just(1.0))


@given(st.lists(st.lists(st.lists(cells, max_size=3), max_size=3), max_size=6))
def test_what_was_read_before_makes_no_grid_valid(values: list[Any]) -> None:
    shared = GridReader()

    def outcome(read: GridReader, value: Any) -> Any:
        try:
            return read(value)
        except InputError as error:
            return str(error)

    for value in values:
        assert outcome(shared, value) == outcome(GridReader(), value)


def test_equal_grids_become_one_object() -> None:
    read = GridReader()
    assert read([[1, 2], [3, 4]]) is read([[1, 2], [3, 4]])
