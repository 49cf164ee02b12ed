"""Laws of encoding: what is given is the engine's own prompt, what is said carries the loss."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from tests.training.tiny import SUMS, checkpoint

from mull.engines.torch.load import load_tokenizer
from mull.engines.torch.text import Text
from mull.errors import InputError
from mull.training.data import Example, Parts
from mull.training.dialogue import Dialogue, Encoder, Turn
from mull.training.stream import Repeated
from mull.types import Message, Prompt

USER, BYE = Message("user", "hi there"), Message("assistant", "bye")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("chat"), chat=True)


@pytest.fixture(scope="module")
def qwen2(shared_data: Path) -> Path:
    folder = shared_data / "tokenizers" / "qwen2"
    if not (folder / "tokenizer.json").is_file():
        pytest.skip(f"no tokenizer in {folder}")
    return folder


def said(encoder: Encoder, text: Any) -> str:
    """What the model is to say, its special tokens shown."""
    row = encoder(text)
    ids = [token for token, mark in zip(row.ids, row.said, strict=True) if mark]
    return str(encoder.tokenizer.decode(ids, skip_special_tokens=False))


def test_a_prompt_is_given_and_its_solution_is_said_with_its_end(plain: Path) -> None:
    encoder = Encoder.of(plain)
    row = encoder(Example("2 + 3 = ", "5"))
    assert said(encoder, Example("2 + 3 = ", "5")) == "5<eos>"
    # As the engine sends it, beginning token and all.
    engine = Text(load_tokenizer(plain), len(encoder.tokenizer))
    assert row.question()[0] == engine.prompt(Prompt.of("2 + 3 = "))
    assert row.spoken == 2


def test_parts_are_said_where_they_say_so_and_nothing_follows_them(plain: Path) -> None:
    encoder = Encoder.of(plain)
    text = Parts((("1 + 1 = ", False), ("2\n", True), ("2 + 2 = ", False), ("4\n", True)))
    assert said(encoder, text) == "2\n4\n"
    asked, wanted = encoder(text).question()
    assert encoder.tokenizer.decode(asked).endswith("2 + 2 = ")
    assert encoder.tokenizer.decode(wanted) == "4\n"


def test_only_the_last_turn_is_said_unless_every_one_is_to_be(chat: Path) -> None:
    encoder = Encoder.of(chat)
    messages = (USER, BYE, Message("user", "what is it ?"), Message("assistant", "0 1"))
    assert said(encoder, Dialogue.of(messages)) == "0 1<eos>"
    assert said(encoder, Dialogue.of(messages, every=True)) == "bye<eos>0 1<eos>"


def test_a_tokenizer_without_a_template_takes_one_question_and_its_answer(plain: Path) -> None:
    encoder = Encoder.of(plain)
    assert encoder(Dialogue.of((USER, BYE))).ids == encoder(Example("hi there", "bye")).ids
    with pytest.raises(InputError, match="no chat template"):
        encoder(Dialogue.of((Message("system", "be kind"), USER, BYE)))


def test_a_text_with_nothing_to_say_is_refused(plain: Path) -> None:
    with pytest.raises(InputError, match="nothing is to be said"):
        Encoder.of(plain)(Parts((("1 + 1", False),)))


@pytest.mark.parametrize("messages", [(USER,), (BYE,), (BYE, USER), ()])
def test_a_chat_ends_with_an_answer_to_something(messages: tuple[Message, ...]) -> None:
    with pytest.raises(InputError, match="ends with an assistant's turn"):
        Dialogue.of(messages)


def test_texts_come_in_a_new_order_every_epoch_the_same_ones_from_anywhere() -> None:
    texts = Repeated(tuple(SUMS), seed=3)
    first = list(islice(texts(), 250))
    assert sorted(map(str, first[:100])) == sorted(map(str, SUMS))
    assert sorted(map(str, first[100:200])) == sorted(map(str, SUMS))
    assert first[:100] != first[100:200]
    for start in (0, 1, 99, 100, 130):
        assert list(islice(texts(start), 60)) == first[start : start + 60]
    assert texts.identity == Repeated(tuple(SUMS), seed=3).identity
    assert (
        len({texts.identity, Repeated(tuple(SUMS)).identity, Repeated(tuple(SUMS[1:]), 3).identity})
        == 3
    )


@pytest.mark.timeout(30)  # a vocabulary of 150,000 is read
def test_a_real_template_asks_as_the_engine_does_and_ends_the_turn(qwen2: Path) -> None:
    encoder = Encoder.of(qwen2)
    opening = "### Output\n\n```grid"
    turns = (
        Turn("system", (("You solve.", False),)),
        Turn(
            "user",
            (
                ("## Example 1\n\n### Output\n\n```grid", False),
                (" shape: 1x1\n1 3\n```", True),
                ("\n\nx", False),
            ),
        ),
        Turn("assistant", ((opening, False), (" shape: 1x1\n1 2\n```", True))),
    )
    row = encoder(Dialogue(turns))
    engine = Text(load_tokenizer(qwen2), len(encoder.tokenizer))
    answer = Dialogue((*turns[:1], Turn("user", ((turns[1].message.content, False),)), turns[2]))
    prompt = Prompt.chat(*(turn.message for turn in turns[:-1]))
    assert encoder(answer).question()[0] == engine.prompt(prompt, opening)
    assert said(encoder, answer) == " shape: 1x1\n1 2\n```<|im_end|>"
    assert said(encoder, Dialogue(turns)) == " shape: 1x1\n1 3\n``` shape: 1x1\n1 2\n```<|im_end|>"
    # Marking what is said in a turn cuts its tokens there and changes none of its characters.
    assert encoder.tokenizer.decode(row.ids) == encoder.tokenizer.decode(encoder(answer).ids)


def test_an_answer_that_stands_in_the_templates_words_is_found_behind_them(qwen2: Path) -> None:
    encoder = Encoder.of(qwen2)
    turns = (USER, Message("assistant", "a"), USER, Message("assistant", "b"))
    assert said(encoder, Dialogue.of(turns, every=True)) == "a<|im_end|>b<|im_end|>"


def test_an_empty_turn_is_no_crash(qwen2: Path) -> None:
    encoder = Encoder.of(qwen2)
    turns = (Message("system", ""), USER, BYE)
    assert said(encoder, Dialogue.of(turns)) == "bye<|im_end|>"
