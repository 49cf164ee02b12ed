"""Laws of the compact formats: a solution continues its prompt, and is read back."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tasks.arc.test_encode import grids

from mull.errors import InputError, SpecError
from mull.tasks.arc import compact
from mull.tasks.arc.compact import (
    ARCHITECTS,
    CHARACTERS,
    FORMATS,
    MARKED,
    NVARC,
    Format,
    Lists,
    compact_format,
    prompt,
)
from mull.tasks.arc.encode import Unreadable, read
from mull.tasks.arc.grids import Grid, Pair, Puzzle

PUZZLE = Puzzle(
    "p",
    (Pair(((1, 2, 3), (4, 5, 6)), ((7, 8), (9, 0))), Pair(((1,),), ((2,),))),
    (Pair(((3, 4),)), Pair(((5,), (6,)), ((6,), (5,)))),
)
LISTS = Lists()
names = pytest.mark.parametrize("name", sorted(FORMATS))
forms = st.sampled_from([FORMATS[name] for name in sorted(FORMATS)])
likely = st.lists(
    st.sampled_from([*"0123456789,[]{}<=> \n", r"\boxed{", "[[1, 2]]", "<|im_end|>", "</s>"]),
    max_size=30,
).map("".join)


def test_the_formats_are_those_of_the_field() -> None:
    assert prompt(MARKED, PUZZLE) == "<123\n456=78\n90><1=2><34="
    assert prompt(MARKED, PUZZLE, 1) == "<123\n456=78\n90><1=2><5\n6="
    letters = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    assert prompt(ARCHITECTS, PUZZLE) == (
        f"{letters}I123\n456\n+/-=O78\n90\n</s>I1\n+/-=O2\n</s>I34\n+/-=O"
    )
    assert prompt(replace(ARCHITECTS, end="<|end|>", preamble=""), PUZZLE).count("<|end|>") == 2
    assert prompt(NVARC, PUZZLE).startswith(
        "<|im_start|>user\n123\n456<|im_end|><|im_start|>assistant\n78\n90<|im_end|>"
    )
    assert MARKED.solution(((1, 2), (3, 4))) == "12\n34>"
    assert ARCHITECTS.solution(((1, 2), (3, 4))) == "12\n34\n"
    assert NVARC.solution(((1, 2), (3, 4))) == "12\n34"
    assert LISTS.solution(((1, 2), (3, 4))) == "[[1, 2], [3, 4]]"


@given(st.lists(st.builds(Pair, grids, grids), min_size=1, max_size=3), grids, grids)
@settings(max_examples=50)
def test_marked_text_has_fourteen_characters_and_one_mark_more_than_its_cells(
    train: list[Pair], asked: Grid, answer: Grid
) -> None:
    puzzle = Puzzle("p", tuple(train), (Pair(asked, answer),))
    text = prompt(MARKED, puzzle) + MARKED.solution(answer)
    assert len(set(CHARACTERS)) == 14
    assert set(text) <= set(CHARACTERS)
    shown = [grid for pair in (*train, *puzzle.test) for grid in (pair.input, pair.output or ())]
    # A grid costs its cells, its line breaks and one mark; the pair one mark more.
    cost = sum(len(grid) * len(grid[0]) + len(grid) for grid in shown)
    assert len(text) == cost + len(train) + 1


def test_a_tokenizer_trained_here_reads_marked_text_one_token_a_character() -> None:
    from mull.training.tokenizer import SPECIAL, build_tokenizer

    text = prompt(MARKED, PUZZLE) + MARKED.solution(((4, 3),))
    tokenizer = build_tokenizer([CHARACTERS])
    assert tokenizer.get_vocab_size() == 14 + len(SPECIAL) + 1
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert len(ids) == len(text)
    assert tokenizer.decode(ids) == text


@names
@given(grid=grids)
@settings(max_examples=100)
def test_a_solution_is_read_back(name: str, grid: Grid) -> None:
    form = FORMATS[name]
    solution = form.solution(grid)
    assert form.to_grid(solution) == form.to_grid(solution, strict=True) == grid


@names
def test_every_test_pair_has_its_prompt_without_its_output(name: str) -> None:
    form = FORMATS[name]
    pieces = form.pieces(PUZZLE, 1)
    assert not pieces[-1].said
    assert prompt(form, PUZZLE, 1) != prompt(form, PUZZLE, 0)
    hidden = replace(PUZZLE, test=(PUZZLE.test[0], Pair(PUZZLE.test[1].input)))
    assert form.pieces(hidden, 1) == pieces
    for index in (-1, 2):
        with pytest.raises(InputError, match=r"no test pair .*expected 0\.\.1"):
            form.pieces(PUZZLE, index)


@pytest.mark.parametrize("form", [MARKED, ARCHITECTS, NVARC])
def test_what_is_said_is_every_output_as_a_solution(form: compact.Rows) -> None:
    said = [piece.text for piece in form.pieces(PUZZLE) if piece.said]
    outputs = [pair.output for pair in PUZZLE.train if pair.output is not None]
    assert said == [form.solution(output) + form.end for output in outputs]


@given(forms, st.one_of(st.text(), likely), st.booleans())
@settings(max_examples=400)
def test_no_text_breaks_a_reader(form: Format, text: str, strict: bool) -> None:
    reading = read(form, text, strict)
    assert (reading.grid is None) == (reading.failure is not None)
    if strict and reading.grid is not None:
        assert read(form, text).grid == reading.grid


@pytest.mark.parametrize(
    ("text", "lenient", "strict"),
    [
        ("12\n34>", None, None),
        ("12\n34", None, Unreadable.TRUNCATED),
        ("12\n3", Unreadable.TRUNCATED, Unreadable.TRUNCATED),
        ("12\n3>", Unreadable.RAGGED, Unreadable.RAGGED),
        ("12\n34><5=", None, Unreadable.BAD_SYMBOL),
        ("12\n34=", Unreadable.BAD_SYMBOL, Unreadable.TRUNCATED),
        (">", Unreadable.NO_ROWS, Unreadable.NO_ROWS),
        ("", Unreadable.EMPTY, Unreadable.EMPTY),
    ],
)
def test_a_marked_solution_is_whole_where_its_mark_is(
    text: str, lenient: Unreadable | None, strict: Unreadable | None
) -> None:
    assert read(MARKED, text).failure is lenient
    assert read(MARKED, text, strict=True).failure is strict


def test_what_follows_the_end_of_the_turn_is_passed_over() -> None:
    assert NVARC.to_grid("12\n34<|im_end|><|im_start|>user\n5") == ((1, 2), (3, 4))
    assert ARCHITECTS.to_grid("12\n34\n</s>I1") == ((1, 2), (3, 4))


@pytest.mark.parametrize(
    ("text", "grid"),
    [
        ("[[1, 2], [3, 4]]", ((1, 2), (3, 4))),
        ("OUTPUT:\n[[1,2],\n [3,4]]\n", ((1, 2), (3, 4))),
        (r"First [[0]], then \boxed{[[1, 2]]}; see [[9]].", ((1, 2),)),
        (r"\boxed{flip} is the rule: [[5]]", ((5,),)),
        ("First [[0]], at last [[7]]", ((7,),)),
        ("```json\n[[7, 8]]\n```", ((7, 8),)),
    ],
)
def test_the_box_comes_first_and_then_the_last_list(text: str, grid: Grid) -> None:
    assert LISTS.to_grid(text) == grid


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("no list", Unreadable.NO_BLOCK),
        ("]", Unreadable.NO_BLOCK),
        ("[[1, 2], [3", Unreadable.TRUNCATED),
        ("[[1, 2", Unreadable.TRUNCATED),
        ("[1, 2]", Unreadable.BAD_SYMBOL),
        ("[[1, 10]]", Unreadable.BAD_SYMBOL),
        ("[[1, true]]", Unreadable.BAD_SYMBOL),
        ("[[1, 1.0]]", Unreadable.BAD_SYMBOL),
        ("[[1, [2]]]", Unreadable.BAD_SYMBOL),
        ("[[1, x]]", Unreadable.BAD_SYMBOL),
        ("[[1], [2, 3]]", Unreadable.RAGGED),
        ("[]", Unreadable.NO_ROWS),
        ("[[], []]", Unreadable.NO_ROWS),
        ("[" * 100_000 + "]" * 100_000, Unreadable.BAD_SYMBOL),
        ("[[" + "9" * 5000 + "]]", Unreadable.BAD_SYMBOL),
    ],
)
def test_a_list_that_is_no_grid_has_a_reason(text: str, failure: Unreadable) -> None:
    assert read(LISTS, text).failure is failure


def test_strictly_the_list_stands_alone_or_in_its_box() -> None:
    assert read(LISTS, " [[1]]\n", strict=True).grid == ((1,),)
    assert read(LISTS, r"\boxed{[[1]]}", strict=True).grid == ((1,),)
    assert read(LISTS, "It is [[1]]", strict=True).grid is None


def test_the_list_prompt_shows_every_pair_and_the_test_input() -> None:
    text = prompt(LISTS, PUZZLE)
    assert text.index("--Training Examples--") < text.index("--Example 0--")
    assert text.index("--Example 1--") < text.index("--Test Input--")
    assert text.count("INPUT:") == text.count("OUTPUT:") == 2
    assert json.loads(text.rpartition("--Test Input--\n")[2]) == [[3, 4]]


def test_an_unknown_format_is_answered_with_the_valid_ones() -> None:
    assert compact_format("marked") is MARKED
    with pytest.raises(SpecError, match="valid: architects, lists, marked, nvarc"):
        compact_format("mark")
