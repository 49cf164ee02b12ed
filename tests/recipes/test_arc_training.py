"""The ARC studies' trainings: variants see the same puzzles, and what is finished is not redone."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from importlib import import_module
from itertools import islice
from pathlib import Path
from types import ModuleType

import pytest

from mull.tasks.arc.augment import Recipe
from mull.tasks.arc.encode import read
from mull.tasks.arc.stream import ArcStream
from mull.tasks.arc.writing import Chat, writing

import_module("torch._dynamo")  # the first optimizer of a process loads this, slowly
pytestmark = pytest.mark.timeout(60)
FOLDER = Path(__file__).parents[2] / "recipes" / "arc"
KINDS = ("1d_fill", "1d_move_1p")
GRID = ((0, 1, 2), (3, 4, 5))


@pytest.fixture(scope="module")
def arc() -> Iterator[dict[str, ModuleType]]:
    """The recipe's files as modules; scripts import each other by name from their own folder."""
    found: dict[str, ModuleType] = {}
    for name in ("puzzles", "rows", "training", "encoders"):
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        assert spec is not None and spec.loader is not None
        found[name] = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found[name])
    yield found
    for name in found:
        del sys.modules[name]


def test_held_out_puzzles_are_small_and_none_of_their_tests_is_trained_on(
    arc: dict[str, ModuleType],
) -> None:
    held = arc["puzzles"].held_out(5, KINDS, ())
    sources = arc["puzzles"].trained(held, KINDS, (), pairs=50)
    assert len(held) == 10 and len(sources) == 80
    asked = {pair for puzzle in held for pair in puzzle.test}
    shown = {pair for puzzle in sources for pair in (*puzzle.train, *puzzle.test)}
    assert not asked & shown
    assert max(len(pair.input[0]) for pair in asked | shown) <= arc["puzzles"].WIDEST


def test_variants_differ_by_shape_and_row_numbers_alone(arc: dict[str, ModuleType]) -> None:
    texts = {}
    for name, spec in arc["encoders"].VARIANTS.items():
        form = writing(spec)
        assert isinstance(form, Chat)
        assert form.encoder.opening == "```grid"
        texts[name] = form.encoder.to_text(GRID)
        assert read(form.encoder, texts[name]).grid == GRID
    assert texts["minimal"] == "```grid\n012\n345\n```"
    assert texts["+ shape"] == texts["minimal"].replace("grid", "grid shape: 2x3")
    assert texts["+ row numbers"] == "```grid\n1 012\n2 345\n```"
    assert texts["+ both"] == texts["+ row numbers"].replace("grid", "grid shape: 2x3")


def test_the_tokenizer_has_a_token_for_each_cell_wherever_it_stands(
    arc: dict[str, ModuleType],
) -> None:
    spec = arc["encoders"].VARIANTS["+ both"]
    form = writing(spec)
    texts = [form.solution((tuple(range(10)),) * 12)]
    tokenizer = arc["training"].tokenizer_of(texts)
    tokens = tokenizer.encode(form.solution(GRID), add_special_tokens=False).tokens
    assert "".join(tokens) == form.solution(GRID)
    # Behind a row number's space the first cell is the same token as any other.
    assert tokens[-13:] == [*"1 012\n2 345\n", "```"]


def test_every_format_is_trained_on_the_same_puzzles_in_the_same_order(
    arc: dict[str, ModuleType], tmp_path: Path
) -> None:
    held = arc["puzzles"].held_out(2, KINDS, ())
    sources = arc["puzzles"].trained(held, KINDS, (), pairs=25)
    words = arc["encoders"].words(tmp_path, held, sources)
    lengths = []
    for spec in arc["encoders"].VARIANTS.values():
        made = arc["training"].data(spec, sources, held, 8, words)
        assert len(made.training) == 8 and len(made.validation) == len(held)
        lengths.append(made.training.tokens)
    assert lengths[0] == min(lengths) and lengths[3] == max(lengths)
    counts = [
        [sum(t.message.content.count("## Example") for t in text.turns) for text in islice(s(), 5)]
        for s in (
            ArcStream(sources, writing(spec), "answer", Recipe(geometry=False, own=0.0))
            for spec in arc["encoders"].VARIANTS.values()
        )
    ]
    assert all(count == counts[0] for count in counts)


def test_a_training_keeps_its_checkpoints_and_is_not_made_twice(
    arc: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = arc["puzzles"].held_out(1, KINDS, ())
    sources = arc["puzzles"].trained(held, KINDS, (), pairs=25)
    words = tmp_path / "words"
    from mull.tasks.arc.compact import CHARACTERS

    arc["training"].save_words(arc["training"].tokenizer_of([CHARACTERS]), words)
    made = arc["training"].data("marked", sources, held, 24, words)
    plan = arc["training"].Plan(checkpoints=2, batch=2)
    checks = arc["training"].train(plan, made, tmp_path / "model")
    assert [check["share"] for check in checks][-1] == 1.0 and len(checks) == 2
    assert (tmp_path / "model" / "2" / "model.safetensors").is_file()
    monkeypatch.setattr(arc["training"], "Trainer", None)
    assert arc["training"].train(plan, made, tmp_path / "model") == checks
