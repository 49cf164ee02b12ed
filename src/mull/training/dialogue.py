"""Texts with answers → token ids, each with whether the model is to say it; for any tokenizer.

What a model is given is encoded exactly as the torch engine encodes a prompt with the beginning of
the assistant's turn, and what it is to say is encoded behind it, so that a model meets in use the
very tokens that it was trained on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from mull.engines.torch.text import Text
from mull.errors import InputError
from mull.training.data import Example, Parts
from mull.types import Message, Role


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a chat in parts, each with whether the model is to say it."""

    role: Role
    parts: tuple[tuple[str, bool], ...]

    @property
    def message(self) -> Message:
        """The turn as it is sent."""
        return Message(self.role, "".join(text for text, _ in self.parts))


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A chat that ends with an assistant's turn; after turns that are said, so is their end token.

    >>> Dialogue.of((Message("user", "2+2?"), Message("assistant", "4"))).turns[1].parts
    (('4', True),)
    """

    turns: tuple[Turn, ...]

    def __post_init__(self) -> None:
        if len(self.turns) < 2 or self.turns[-1].role != "assistant":
            raise InputError(
                "a chat to train on ends with an assistant's turn that answers another"
            )

    @classmethod
    def of(cls, messages: Sequence[Message], every: bool = False) -> Dialogue:
        """A chat whose last turn is to be said; with ``every``, all of the assistant's turns."""
        last = len(messages) - 1
        return cls(
            tuple(
                Turn(m.role, ((m.content, m.role == "assistant" and (every or n == last)),))
                for n, m in enumerate(messages)
            )
        )


TrainingText = Example | Parts | Dialogue
"""What can be trained on: a prompt and its solution, a text in parts, a chat."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of one text; ``said`` [tokens] marks those that the model is to say.

    The first token is never said: nothing stands before it that could foretell it.
    """

    ids: tuple[int, ...]
    said: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def spoken(self) -> int:
        """Tokens that the loss counts."""
        return sum(self.said[1:])

    def question(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What stands before the last stretch that is said, and that stretch."""
        end = len(self.said)
        while end and not self.said[end - 1]:
            end -= 1
        start = end
        while start and self.said[start - 1]:
            start -= 1
        return self.ids[:start], self.ids[start:end]


class Encoder:
    """A tokenizer's way with training texts. ``ends`` are the tokens that can end a turn."""

    def __init__(self, tokenizer: Any, ends: Iterable[int] = ()) -> None:
        self.tokenizer = tokenizer
        self._text = Text(tokenizer, len(tokenizer))
        own = () if self._text.eos is None else (self._text.eos,)
        self.ends = frozenset([*own, *ends])

    @classmethod
    def of(cls, folder: Path) -> Encoder:
        """The tokenizer of a model's folder; ``ModelLoadError`` where there is none."""
        from mull.engines.torch.load import load_tokenizer

        ends: list[int] = []
        if (file := folder / "generation_config.json").is_file():
            found = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id")
            ends = found if isinstance(found, list) else [] if found is None else [found]
        return cls(load_tokenizer(folder), ends)

    def __call__(self, text: TrainingText) -> Encoded:
        """Encode; parts are encoded one by one, so a border between them is one between tokens.

        Raises:
            InputError: nothing is to be said, the tokenizer has no end token, or its chat template
                changes the words of a turn.
        """
        if isinstance(text, Dialogue):
            parts, end = self._chat(text)
        elif isinstance(text, Parts):
            parts, end = list(text.parts), ()
        else:
            parts, end = [(text.prompt, False), (text.solution, True)], (self._end(),)
            if text.ids is not None:
                parts, end = parts[:1], text.ids
        ids: list[int] = []
        said: list[bool] = []
        for speak, group in groupby((p for p in parts if p[0]), key=lambda part: part[1]):
            found = self._text.encode("".join(words for words, _ in group), special=True)
            ids += found
            said += [speak] * len(found)
        bos = self._text.bos
        if bos and tuple(ids[: len(bos)]) != bos:
            ids, said = [*bos, *ids], [False] * len(bos) + said
        ids, said = [*ids, *end], said + [True] * len(end)
        encoded = Encoded(tuple(ids), tuple(said))
        if not encoded.spoken:
            raise InputError(f"nothing is to be said in the training text {str(text)[:80]!r}")
        return encoded

    def _end(self) -> int:
        if self._text.eos is None:
            raise InputError("the tokenizer names no end token, so no answer could ever end")
        return self._text.eos

    def _chat(self, chat: Dialogue) -> tuple[list[tuple[str, bool]], tuple[int, ...]]:
        """The rendered chat in parts, and the tokens that end it."""
        *turns, answer = chat.turns
        before = self._render([turn.message for turn in turns], True)
        parts, rest = list[tuple[str, bool]](), before
        for number, turn in enumerate(turns):
            # A short answer may stand in the words before it too ("a" in "assistant"): skip those.
            head = self._render([t.message for t in turns[:number]], True) if number else ""
            done = len(before) - len(rest)
            skip = turn.role == "assistant" and len(head) > done and before.startswith(head)
            parts.append((before[done : len(head)] if skip else "", False))
            glue, said, rest = self._cut(before[len(head) :] if skip else rest, turn)
            parts += [(glue, False), *said]
            if turn.role == "assistant" and turn.parts[-1][1]:
                # The turn was said as a whole, its end token with it.
                ended = next((t for t in self._end_texts() if rest.startswith(t)), "")
                parts.append((ended, True))
                rest = rest.removeprefix(ended)
        parts += [(rest, False), *answer.parts]
        return parts, (self._last(chat),) if answer.parts[-1][1] else ()

    def _cut(self, text: str, turn: Turn) -> tuple[str, tuple[tuple[str, bool], ...], str]:
        """What the template puts before a turn, the turn's parts, and what follows them."""
        words, parts = turn.message.content, turn.parts
        if words not in text and len(parts) == 1:
            # Most templates take away white space around a turn.
            words = words.strip()
            parts = ((words, parts[0][1]),)
        if not words:
            return "", (), text
        glue, found, rest = text.partition(words)
        if not found:
            raise InputError(
                f"the chat template changes the words of a turn ({words[:60]!r}); expected them to "
                "stand in it as they are"
            )
        return glue, parts, rest

    def _end_texts(self) -> list[str]:
        return [str(self.tokenizer.convert_ids_to_tokens(end)) for end in sorted(self.ends)]

    def _last(self, chat: Dialogue) -> int:
        """The token that the template ends an assistant's turn with, else the tokenizer's own."""
        if not self._text.template:
            return self._end()
        whole = self._render([turn.message for turn in chat.turns], False)
        said = chat.turns[-1].message.content.strip()
        tail = whole.rpartition(said)[2] if said else whole
        behind = self._text.encode(tail, special=True)
        return next((token for token in behind if token in self.ends), None) or self._end()

    def _render(self, messages: Sequence[Message], open: bool) -> str:
        if not self._text.template:
            if len(messages) > 1:
                raise InputError(
                    "the model's tokenizer has no chat template: train it on prompts and answers, "
                    "or on chats of one user turn and one answer"
                )
            return messages[0].content
        turns = [{"role": m.role, "content": m.content} for m in messages]
        rendered: str = self.tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=open
        )
        return rendered
