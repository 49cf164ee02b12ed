"""A jsonl file of prompts and answers, or of chats → dialogues to train on.

A row has ``messages``, turns of a chat that end with the assistant's, or a prompt (``prompt``,
``question``, ``problem`` or ``text``) with its ``answer`` (or ``solution``, ``response``,
``completion``). Other fields are left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from mull.errors import InputError
from mull.tasks.files import read_rows
from mull.training.dialogue import Dialogue
from mull.types import Message

PROMPTS: Final = ("prompt", "question", "problem", "text")
ANSWERS: Final = ("answer", "solution", "response", "completion")


def read_dialogues(path: str, every: bool = False) -> Iterator[Dialogue]:
    """The rows of a file as dialogues, lazily; the last turn is to be said.

    With ``every``, all of the assistant's turns are. ``InputError`` names the row that is wrong.
    """
    for row in read_rows(path):
        messages = row.messages()
        if messages is None:
            messages = (
                Message("user", row.text(*PROMPTS)),
                Message("assistant", row.text(*ANSWERS)),
            )
        try:
            yield Dialogue.of(messages, every)
        except InputError as error:
            raise row.error(str(error)) from None
