"""How puzzles are written for a model and its answers read: a compact text, or a chat.

One name stands for all of it: ``marked`` (a compact format), or a grid encoder's spec string such
as ``GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))`` (a chat).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from mull.tasks.arc.compact import FORMATS, Format, Rows, compact_format, prompt
from mull.tasks.arc.encode import FENCE, Encoder, Reading, read
from mull.tasks.arc.encoder_spec import parse_encoder
from mull.tasks.arc.grids import Grid, Puzzle
from mull.tasks.arc.prompts import HEADING, Layout, answer, ask
from mull.types import Prompt


class Writing(Protocol):
    """A puzzle → what a model is asked; a grid → what it is to say; a text → a grid."""

    @property
    def stop(self) -> tuple[str, ...]:
        """Stop strings that end a solution before the model's own end."""
        ...

    @property
    def closes(self) -> bool:
        """Whether a solution's text shows where it ends, or the end of the turn alone does."""
        ...

    def ask(self, puzzle: Puzzle, index: int = 0) -> tuple[Prompt, str]:
        """The prompt of a test pair, and what the assistant's turn begins with."""
        ...

    def solution(self, grid: Grid) -> str:
        """The whole of the assistant's turn that gives this grid."""
        ...

    def read(self, text: str, strict: bool = False) -> Reading:
        """The grid in an assistant's turn, or why there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Compact:
    """A text that the answer simply continues."""

    form: Format

    @property
    def stop(self) -> tuple[str, ...]:
        """The mark that closes a grid, where it is more than a line break.

        A stop string is no part of the text, so ``read`` does not ask for it.
        """
        close = self.form.close if isinstance(self.form, Rows) else ""
        return (close,) if close.strip() else ()

    @property
    def closes(self) -> bool:
        return self.form.closes

    def ask(self, puzzle: Puzzle, index: int = 0) -> tuple[Prompt, str]:
        return Prompt.of(prompt(self.form, puzzle, index)), ""

    def solution(self, grid: Grid) -> str:
        return self.form.solution(grid)

    def read(self, text: str, strict: bool = False) -> Reading:
        stop = "".join(self.stop)
        whole = text if stop in text or not text.strip() else text + stop
        return read(self.form, whole, strict)


@dataclass(frozen=True, slots=True)
class Chat:
    """Turns of a chat, grids written by an encoder under headings."""

    encoder: Encoder
    layout: Layout = "short"

    @property
    def stop(self) -> tuple[str, ...]:
        return ()

    @property
    def closes(self) -> bool:
        """A fence does, and the shape that is stated before it."""
        return FENCE in self.encoder.opening

    def ask(self, puzzle: Puzzle, index: int = 0) -> tuple[Prompt, str]:
        asked = ask(puzzle, index, self.encoder, self.layout)
        return asked.prompt, asked.prefill

    def solution(self, grid: Grid) -> str:
        return answer(grid, self.encoder)

    def read(self, text: str, strict: bool = False) -> Reading:
        """Behind the heading if it is there, else the whole text."""
        before, heading, body = text.partition(HEADING)
        return read(self.encoder, (body if heading else before).lstrip("\n"), strict)


@lru_cache(maxsize=64)
def writing(name: str, layout: Layout = "short") -> Writing:
    """The writing of a name; ``SpecError`` for one that is neither format nor encoder.

    >>> writing("marked").solution(((1, 2), (3, 4)))
    '12\\n34>'
    """
    if "(" not in name or name in FORMATS:
        return Compact(compact_format(name))
    return Chat(parse_encoder(name), layout)
