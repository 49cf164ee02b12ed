"""Laws of the training stream: endless, the same from anywhere, right for each writing, fitted."""

from __future__ import annotations

import random
from collections import Counter
from itertools import islice
from typing import Any

import pytest

from mull.errors import ConfigError, InputError
from mull.tasks.arc.augment import Recipe
from mull.tasks.arc.data import Pool, n_minus_1
from mull.tasks.arc.grids import Grid, Pair, Puzzle, as_text
from mull.tasks.arc.stream import ArcStream, Loss, fitted, text_of, texts_of
from mull.tasks.arc.writing import writing
from mull.training.data import Example, Parts
from mull.training.dialogue import Dialogue, TrainingText

CHAT = "GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))"
STILL = Recipe(geometry=False, colours=False, order=False, swap=False, own=0.0)


def grid(seed: int, side: int = 3) -> Grid:
    rng = random.Random(seed)
    return tuple(tuple(rng.choices(range(10), k=side)) for _ in range(side))


def puzzle(number: int, train: int = 3, tests: int = 1) -> Puzzle:
    pairs = [
        Pair(grid(100 * number + i), grid(100 * number + 50 + i)) for i in range(train + tests)
    ]
    return Puzzle(f"p{number}", tuple(pairs[:train]), tuple(pairs[train:]))


PUZZLES = tuple(puzzle(number) for number in range(5))


def words(text: TrainingText) -> str:
    if isinstance(text, Dialogue):
        return "".join(turn.message.content for turn in text.turns)
    return text.text if isinstance(text, Parts) else text.prompt + text.solution


def said(text: TrainingText) -> list[str]:
    if isinstance(text, Dialogue):
        return [words for turn in text.turns for words, speak in turn.parts if speak]
    if isinstance(text, Parts):
        return [words for words, speak in text.parts if speak]
    return [text.solution]


@pytest.mark.parametrize("name", ["marked", "nvarc", "architects", CHAT])
@pytest.mark.parametrize("loss", ["answer", "outputs"])
def test_what_is_said_are_the_outputs_and_nothing_else(name: str, loss: Loss) -> None:
    one, way = puzzle(1), writing(name)
    text = text_of(one, 0, way, loss)
    spoken = said(text)
    wanted = [pair.output for pair in (*one.train, *one.test)][0 if loss == "outputs" else -1 :]
    assert len(spoken) == len(wanted)
    opening = way.ask(one)[1]
    for part, output in zip(spoken, wanted, strict=True):
        ending = "</s>" if name == "architects" else "<|im_end|>" if name == "nvarc" else ""
        assert way.read(opening + part.removesuffix(ending)).grid == output
    # The loss changes what is marked, and no character of what stands there.
    assert words(text).startswith(words(text_of(one, 0, way, "answer")))


def test_the_answer_follows_the_prompt_that_a_model_is_asked() -> None:
    one, way = puzzle(1), writing(CHAT)
    prompt, opening = way.ask(one)
    text = text_of(one, 0, way)
    assert isinstance(text, Dialogue)
    assert tuple(turn.message for turn in text.turns[:-1]) == prompt.messages
    assert text.turns[-1].parts[0] == (opening, False)
    plain = text_of(one, 0, writing("marked"))
    assert isinstance(plain, Example)
    assert plain.prompt == writing("marked").ask(one)[0].text


@pytest.mark.parametrize("recipe", [None, STILL])
def test_texts_are_the_same_from_anywhere(recipe: Recipe | None) -> None:
    options: dict[str, Any] = {} if recipe is None else {"recipe": recipe}
    stream = ArcStream(PUZZLES, writing("marked"), seed=4, **options)
    first = list(islice(stream(), 23))
    for start in (1, 4, 5, 6, 12):
        assert list(islice(stream(start), 11)) == first[start : start + 11]


def test_every_epoch_has_every_puzzle_once_in_another_order() -> None:
    stream = ArcStream(PUZZLES, writing("marked"), recipe=STILL)
    epochs = [[words(text) for text in islice(stream(5 * n), 5)] for n in range(6)]
    assert all(Counter(epoch) == Counter(epochs[0]) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_augmented_visits_differ_and_swap_asks_for_every_pair() -> None:
    one = puzzle(1)
    seen = [words(t) for t in islice(ArcStream((one,), writing("marked"))(), 40)]
    assert len(set(seen)) == 40
    swapped = ArcStream((one,), writing("marked"), recipe=Recipe(False, False, False, True, 0.0))
    answers = {said(text)[0] for text in islice(swapped(), 60)}
    assert answers == {as_text(p.output or ()) + ">" for p in (*one.train, *one.test)}


def test_one_of_several_test_pairs_is_picked_never_one_without_an_output() -> None:
    many = puzzle(2, tests=3)
    many = Puzzle(many.id, many.train, (*many.test[:2], Pair(many.test[2].input)))
    stream = ArcStream((many,), writing("marked"), recipe=STILL)
    answers = {said(text)[0] for text in islice(stream(), 30)}
    assert answers == {as_text(p.output or ()) + ">" for p in many.test[:2]}


def test_test_time_puzzles_never_show_the_test_pair() -> None:
    hidden = puzzle(3)
    bare = Puzzle(hidden.id, hidden.train, (Pair(hidden.test[0].input),))
    with pytest.raises(InputError, match="p3: no test pair has an output"):
        ArcStream((bare,), writing("marked"))
    stream = ArcStream(
        tuple(n_minus_1([bare])),
        writing("marked"),
        recipe=Recipe(own=0.0, geometry=False, colours=False),
    )
    mark = as_text(hidden.test[0].input)
    assert all(mark not in words(text) for text in islice(stream(), 30))


def test_a_pool_gives_another_puzzle_every_visit() -> None:
    pairs = tuple(Pair(grid(i), grid(i + 99)) for i in range(12))
    stream = ArcStream((Pool("pool", pairs, 3),), writing("marked"), recipe=STILL)
    texts = [words(text) for text in islice(stream(), 10)]
    assert len(set(texts)) == 10
    assert texts == [words(text) for text in islice(stream(), 10)]


def test_train_pairs_are_left_out_until_a_text_fits() -> None:
    one, way = puzzle(1), writing("marked")
    whole = len(words(text_of(one, 0, way)))
    two = len(words(text_of(Puzzle("p1", one.train[:2], one.test), 0, way)))
    assert len(words(fitted(one, 0, way, fits=lambda text: len(words(text)) < whole))) == two
    # What fits in no way comes whole, for the training to count.
    assert len(words(fitted(one, 0, way, fits=lambda text: False))) == whole
    stream = ArcStream((one,), way, recipe=STILL, fits=lambda text: len(words(text)) <= two)
    assert all(len(words(text)) == two for text in islice(stream(), 20))
    assert stream.identity != ArcStream((one,), way, recipe=STILL).identity


def test_validation_texts_are_the_test_pairs_as_they_stand() -> None:
    held = texts_of([puzzle(1), puzzle(2, tests=2)], writing("marked"))
    assert len(held) == 3
    assert held[0] == text_of(puzzle(1), 0, writing("marked"))


def test_what_cannot_be_streamed_is_refused() -> None:
    with pytest.raises(InputError, match="no puzzles"):
        ArcStream((), writing("marked"))
    with pytest.raises(ConfigError, match="answer or outputs"):
        ArcStream(PUZZLES, writing("marked"), loss="inputs")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="does not tell the outputs"):
        text_of(PUZZLES[0], 0, writing("lists"), "outputs")
    with pytest.raises(InputError, match="test 0 has no output"):
        text_of(Puzzle("p", PUZZLES[0].train, (Pair(grid(1)),)), 0, writing("marked"))


def test_the_identity_tells_streams_apart() -> None:
    way = writing("marked")
    streams = [
        ArcStream(PUZZLES, way),
        ArcStream(PUZZLES, way, seed=1),
        ArcStream(PUZZLES, way, loss="outputs"),
        ArcStream(PUZZLES, way, recipe=STILL),
        ArcStream(PUZZLES[1:], way),
        ArcStream(PUZZLES, writing(CHAT)),
    ]
    assert len({stream.identity for stream in streams}) == len(streams)
    assert ArcStream(PUZZLES, way).identity == streams[0].identity
