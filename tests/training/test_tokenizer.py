"""Laws of the closed-vocabulary tokenizer."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from mull.tasks.countdown import CountdownTask
from mull.tasks.words import WordsTask
from mull.training.tokenizer import build_tokenizer, load_tokenizer, save_tokenizer

TASKS = [WordsTask(), CountdownTask()]


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.name)
def test_a_thousand_problems_come_back_to_the_byte(task: WordsTask | CountdownTask) -> None:
    train = task.problems("train", 1000)
    tokenizer = build_tokenizer(p.prompt.plain + task.reference(p) for p in train)
    unknown = tokenizer.token_to_id("<unk>")
    for problem in task.problems("validation", 1000):
        text = problem.prompt.plain + task.reference(problem)
        ids = tokenizer.encode(text).ids
        assert unknown not in ids
        assert tokenizer.decode(ids) == text


def test_digits_are_one_token_each_and_know_their_place() -> None:
    tokenizer = build_tokenizer(["a 1 2 3 12 345"])
    assert tokenizer.encode(" 12").tokens == ["<bos>", " 1", "2"]
    assert tokenizer.encode("3 45").tokens[1] == "<unk>"


def test_order_of_texts_does_not_matter() -> None:
    texts = ["a b", "c d", "\n"]
    assert build_tokenizer(texts).get_vocab() == build_tokenizer(texts[::-1]).get_vocab()


def test_transformers_reads_it(tmp_path: Path) -> None:
    text = "- pears = apples 12 + 5 = pears 17\nanswer 17\n"
    save_tokenizer(build_tokenizer([text]), tmp_path, 512)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    ours = load_tokenizer(tmp_path)
    assert theirs(text)["input_ids"] == ours.encode(text).ids
    assert theirs(text)["input_ids"][0] == theirs.bos_token_id
    assert theirs.decode(theirs(text)["input_ids"], skip_special_tokens=True) == text
    assert (theirs.pad_token_id, theirs.bos_token_id, theirs.eos_token_id) == (0, 1, 2)
