"""Laws of files to train on: prompts and answers, or chats; a wrong row is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mull.errors import InputError
from mull.tasks.dialogues import read_dialogues
from mull.training.dialogue import Dialogue


def read(tmp_path: Path, *rows: dict[str, Any], every: bool = False) -> list[Dialogue]:
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(read_dialogues(str(file), every))


@pytest.mark.parametrize("prompt", ["prompt", "question", "problem", "text"])
@pytest.mark.parametrize("answer", ["answer", "solution", "response", "completion"])
def test_a_prompt_and_its_answer_are_a_chat_of_two_turns(
    tmp_path: Path, prompt: str, answer: str
) -> None:
    [chat] = read(tmp_path, {prompt: "2 + 2", answer: "4", "more": 1})
    assert [(turn.role, turn.parts) for turn in chat.turns] == [
        ("user", (("2 + 2", False),)),
        ("assistant", (("4", True),)),
    ]


def test_the_last_turn_of_a_chat_is_said_or_all_of_the_assistants(tmp_path: Path) -> None:
    roles = ("system", "user", "assistant", "user", "assistant")
    row = {"messages": [{"role": r, "content": f"{i}"} for i, r in enumerate(roles)]}
    [last] = read(tmp_path, row)
    [each] = read(tmp_path, row, every=True)
    assert [turn.parts[0][1] for turn in last.turns] == [False, False, False, False, True]
    assert [turn.parts[0][1] for turn in each.turns] == [False, False, True, False, True]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "2 + 2"}, r"texts.jsonl:2: no field answer"),
        ({"answer": "4"}, r"texts.jsonl:2: no field prompt"),
        ({"prompt": "a", "answer": 4}, "answer must be a string"),
        ({"messages": [{"role": "user", "content": "hi"}]}, "2: .* assistant's turn"),
        ({"messages": [{"role": "tool", "content": "hi"}]}, "a turn of messages is"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, {"prompt": "a", "answer": "b"}, row)
