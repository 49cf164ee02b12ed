"""Puzzles → training texts without end: every visit another augmentation, written any way.

Epoch after epoch in a new order, each puzzle is turned, recoloured, reordered, its train and test
pairs pooled and split again (``augment.draw``), one of its test pairs is picked, and the whole is
written as a text that a model is to finish. A text is a pure function of its number, so a training
goes on anywhere.

Facts: reference arc.md 3.1 and 4.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, get_args

from mull.errors import ConfigError, InputError
from mull.rng import derive
from mull.tasks.arc import augment
from mull.tasks.arc.augment import Recipe
from mull.tasks.arc.compact import Rows
from mull.tasks.arc.data import Pool
from mull.tasks.arc.grids import Puzzle
from mull.tasks.arc.prompts import HEADING, ask
from mull.tasks.arc.writing import Chat, Compact, Writing
from mull.training.data import Example, Parts
from mull.training.dialogue import Dialogue, TrainingText, Turn

Loss = Literal["answer", "outputs"]
"""On the answer alone, or on the outputs of the demonstrations as well."""
Fits = Callable[[TrainingText], bool]


@dataclass(frozen=True)
class ArcStream:
    """Training texts of puzzles and pools of pairs (which give another puzzle every visit).

    ``loss`` is what the model is to say: the ``answer``, or all ``outputs`` that it could foretell.
    Where ``fits`` is given, the last train pairs are left out until a text fits, down to one; a
    text that still does not comes as it is. Test pairs without an output are never asked for.

    Raises ``InputError`` for no puzzle, and for one without the output of any test pair.
    """

    puzzles: tuple[Puzzle | Pool, ...]
    writing: Writing
    loss: Loss = "answer"
    recipe: Recipe = field(default_factory=Recipe)
    fits: Fits | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self.loss)
        if not self.puzzles:
            raise InputError("no puzzles to train on")
        for each in self.puzzles:
            if isinstance(each, Puzzle) and not any(pair.output for pair in each.test):
                raise InputError(
                    f"{each.id}: no test pair has an output to learn; expected one, or a train "
                    "pair in its place (n_minus_1)"
                )

    def __len__(self) -> int:
        return len(self.puzzles)

    @cached_property
    def identity(self) -> str:
        """A digest of the puzzles, of how they are written and changed, and of the seed."""
        settings = (self.writing, self.loss, self.recipe, self.fits is not None, self.seed)
        digest = hashlib.blake2b(repr(settings).encode(), digest_size=8)
        for each in self.puzzles:
            digest.update(repr(each).encode())
        return f"{len(self.puzzles)} puzzles {digest.hexdigest()}"

    def __call__(self, first: int = 0) -> Iterator[TrainingText]:
        """Texts from number ``first`` on, without end."""
        count = len(self.puzzles)
        epoch, at = divmod(first, count)
        while True:
            order = list(range(count))
            random.Random(derive(self.seed, "epoch", epoch)).shuffle(order)
            for place in range(at, count):
                yield self._text(self.puzzles[order[place]], epoch * count + place)
            epoch, at = epoch + 1, 0

    def _text(self, source: Puzzle | Pool, number: int) -> TrainingText:
        rng = random.Random(derive(self.seed, "text", number))
        puzzle = source.draw(rng) if isinstance(source, Pool) else source
        shown = augment.apply(augment.draw(puzzle, rng, self.recipe), puzzle)
        index = rng.choice([i for i, pair in enumerate(shown.test) if pair.output])
        return fitted(shown, index, self.writing, self.loss, self.fits)


def fitted(
    puzzle: Puzzle, index: int, writing: Writing, loss: Loss = "answer", fits: Fits | None = None
) -> TrainingText:
    """The text of a puzzle with as many train pairs as fit, the last left out first, at least one.

    What does not fit even so comes with all of them.
    """
    whole = text_of(puzzle, index, writing, loss)
    if fits is None or fits(whole):
        return whole
    for count in range(len(puzzle.train) - 1, 0, -1):
        text = text_of(replace(puzzle, train=puzzle.train[:count]), index, writing, loss)
        if fits(text):
            return text
    return whole


def texts_of(
    puzzles: Sequence[Puzzle], writing: Writing, fits: Fits | None = None
) -> list[TrainingText]:
    """One text of each test pair whose output is known, as the puzzles stand: for validation."""
    return [
        fitted(puzzle, index, writing, "answer", fits)
        for puzzle in puzzles
        for index, pair in enumerate(puzzle.test)
        if pair.output
    ]


def text_of(puzzle: Puzzle, index: int, writing: Writing, loss: Loss = "answer") -> TrainingText:
    """Test pair ``index`` asked and answered.

    >>> from mull.tasks.arc.grids import Pair
    >>> from mull.tasks.arc.writing import writing
    >>> p = Puzzle("p", (Pair(((1,),), ((2,),)),), (Pair(((3,),), ((4,),)),))
    >>> text_of(p, 0, writing("marked"), "outputs").parts
    (('<1=', False), ('2>', True), ('<3=', False), ('4>', True))
    """
    _check(loss)
    gold = puzzle.test[index].output
    if gold is None:
        raise InputError(f"{puzzle.id}: test {index} has no output; expected one to train on")
    solution = writing.solution(gold)
    if isinstance(writing, Chat) and loss == "outputs":
        return _outputs_of_chat(puzzle, index, writing, solution)
    if loss == "outputs":
        form = writing.form if isinstance(writing, Compact) else None
        pieces = form.pieces(puzzle, index) if form else ()
        if not any(piece.said for piece in pieces):
            raise ConfigError(
                f"{writing} does not tell the outputs of demonstrations from the rest: take the "
                "loss on the answer, or another writing"
            )
        end = form.end if isinstance(form, Rows) else ""
        return Parts((*((p.text, p.said) for p in pieces), (solution + end, True)))
    prompt, opening = writing.ask(puzzle, index)
    rest = solution.removeprefix(opening)
    if prompt.text is not None:
        return Example(prompt.text + opening, rest)
    asked = tuple(Turn(m.role, ((m.content, False),)) for m in prompt.messages)
    return Dialogue((*asked, Turn("assistant", ((opening, False), (rest, True)))))


def _outputs_of_chat(puzzle: Puzzle, index: int, writing: Chat, solution: str) -> Dialogue:
    """The demonstrations' outputs stand in the user's turn: found there, one after the other."""
    asked = ask(puzzle, index, writing.encoder, writing.layout)
    system, user = asked.prompt.messages
    parts: list[tuple[str, bool]] = []
    rest = user.content
    for pair in puzzle.train:
        output = writing.encoder.to_text(pair.output or ())
        before, _, rest = rest.partition(f"{HEADING}\n\n{output}")
        said = output.removeprefix(asked.opening)
        parts += [(f"{before}{HEADING}\n\n{asked.opening}", False), (said, True)]
    return Dialogue(
        (
            Turn(system.role, ((system.content, False),)),
            Turn(user.role, (*parts, (rest, False))),
            Turn(
                "assistant",
                ((asked.prefill, False), (solution.removeprefix(asked.prefill), True)),
            ),
        )
    )


def _check(loss: str) -> None:
    if loss not in get_args(Loss):
        raise ConfigError(f"loss {loss!r}: expected {' or '.join(get_args(Loss))}")
