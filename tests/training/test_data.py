"""Laws of encoding and batching."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mull.errors import InputError
from mull.training.data import (
    IGNORED,
    Corpus,
    Example,
    Parts,
    batches,
    collate,
    encode,
    encode_parts,
    load_corpus,
    save_corpus,
)
from mull.training.tokenizer import build_tokenizer

TEXTS = [Example(f"How many {n}?\n", "- " + "x = 1\n" * (n % 7 + 1)) for n in range(60)]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    tokenizer = build_tokenizer(e.prompt + e.solution for e in TEXTS)
    return encode(TEXTS, tokenizer, 10**9)


def test_loss_falls_on_the_solution_and_the_end_only(corpus: Corpus) -> None:
    rows = np.arange(len(corpus))
    batch = collate(corpus, rows)
    for row in rows:
        ids = corpus.ids[corpus.starts[row] : corpus.starts[row + 1]].astype(int)
        asked = int(corpus.prompts[row])
        counted = batch.targets[row][batch.targets[row] != IGNORED]
        assert counted.tolist() == ids[asked:].tolist()
        assert batch.inputs[row, : len(ids)].tolist() == ids.tolist()
        assert (batch.inputs[row, len(ids) :] == 0).all()


@given(st.integers(20, 400), st.integers(0, 5))
def test_an_epoch_holds_every_example_once_within_the_size(size: int, seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(3, 30, 100)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    owner = np.repeat(np.arange(100), lengths).astype(np.uint16) + 1
    corpus = Corpus(owner, starts, np.ones(100, dtype=np.int32))
    seen: list[int] = []
    for batch in batches(corpus, size, seed):
        rows = batch.inputs[:, 0]
        seen.extend(rows.tolist())
        longest = lengths[rows - 1].max()
        assert len(rows) == 1 or longest * len(rows) <= size
        assert batch.tokens == lengths[rows - 1].sum()
        if len(seen) >= 100:
            break
    assert sorted(seen) == list(range(1, 101))


def test_batches_from_the_middle_are_those_of_the_whole(corpus: Corpus) -> None:
    whole = list(islice(batches(corpus, 120, seed=3), 40))
    late = list(islice(batches(corpus, 120, seed=3, first=25), 15))
    for one, two in zip(whole[25:], late, strict=True):
        assert np.array_equal(one.inputs, two.inputs)
        assert np.array_equal(one.targets, two.targets)


def test_epochs_differ_in_order(corpus: Corpus) -> None:
    plenty = 10**6
    first, second = islice(batches(corpus, plenty, seed=0), 2)
    assert first.tokens == second.tokens == corpus.tokens
    other = next(batches(corpus, 120, seed=1))
    same = next(batches(corpus, 120, seed=1))
    assert np.array_equal(other.inputs, same.inputs)


def test_take_keeps_whole_examples(corpus: Corpus) -> None:
    part = corpus.take(corpus.tokens // 2)
    assert corpus.tokens // 2 <= part.tokens < corpus.tokens
    assert part.starts[-1] == part.tokens


def test_corpus_survives_the_disk(corpus: Corpus, tmp_path: Path) -> None:
    save_corpus(corpus, tmp_path / "corpus.npz")
    back = load_corpus(tmp_path / "corpus.npz")
    assert np.array_equal(back.ids, corpus.ids)
    assert np.array_equal(back.starts, corpus.starts)
    assert np.array_equal(back.prompts, corpus.prompts)


def test_labels_survive_the_disk(corpus: Corpus, tmp_path: Path) -> None:
    labels = np.full(corpus.tokens, np.nan, dtype=np.float32)
    labels[3] = 0.25
    labelled = replace(corpus, labels=labels)
    save_corpus(labelled, tmp_path / "corpus.npz")
    back = load_corpus(tmp_path / "corpus.npz")
    np.testing.assert_array_equal(back.labels, labels)
    assert back.identity == labelled.identity != corpus.identity


def test_a_batch_is_bounded_before_its_rows_are_rounded_up_to_eight_tokens() -> None:
    starts = np.arange(0, 91, 9)
    nines = Corpus(np.ones(90, np.uint16), starts, np.ones(10, np.int32))
    batch = next(batches(nines, batch_tokens=90, seed=0))
    assert batch.tokens == 90
    assert batch.inputs.shape == (10, 16)


def test_foreign_text_is_refused_with_the_text() -> None:
    tokenizer = build_tokenizer(["a b"])
    with pytest.raises(InputError, match="zebra"):
        encode([Example("a", " zebra")], tokenizer, 100)


def test_no_examples_is_an_error() -> None:
    with pytest.raises(InputError, match="no training examples"):
        encode([], build_tokenizer(["a"]), 100)


def test_a_text_outside_the_vocabulary_is_refused_or_left_out() -> None:
    tokenizer = build_tokenizer(e.prompt + e.solution for e in TEXTS)
    strange = Example("Wherefore?\n", "- x = 1\n")
    with pytest.raises(InputError, match="outside the tokenizer's vocabulary"):
        encode([TEXTS[0], strange], tokenizer, 10**9)
    kept = encode([TEXTS[0], strange, TEXTS[1]], tokenizer, 10**9, drop_unknown=True)
    assert len(kept) == 2


def test_exact_tokens_stand_as_they_are() -> None:
    tokenizer = build_tokenizer(e.prompt + e.solution for e in TEXTS)
    made = Example(TEXTS[0].prompt, "whatever it reads as", ids=(7, 5, 2))
    corpus = encode([made], tokenizer, 10**9)
    assert corpus.ids[corpus.prompts[0] :].tolist() == [7, 5, 2]


def test_rows_are_taken_in_the_order_asked_for(corpus: Corpus) -> None:
    some = corpus.rows([5, 2, 9])
    for row, origin in enumerate((5, 2, 9)):
        span = slice(int(corpus.starts[origin]), int(corpus.starts[origin + 1]))
        mine = slice(int(some.starts[row]), int(some.starts[row + 1]))
        np.testing.assert_array_equal(some.ids[mine], corpus.ids[span])
    assert some.prompts.tolist() == corpus.prompts[[5, 2, 9]].tolist()


def test_labels_stand_on_the_inputs_of_a_batch() -> None:
    starts = np.array([0, 3, 8], dtype=np.int64)
    labels = np.array([np.nan, 0.5, 1, np.nan, np.nan, 0, 0.25, 0.75], dtype=np.float32)
    labelled = Corpus(np.arange(8, dtype=np.uint16), starts, np.ones(2, np.int32), labels)
    batch = collate(labelled, np.array([1, 0]))
    assert batch.labels is not None
    assert batch.labels.shape == batch.inputs.shape
    known = np.isfinite(batch.labels)
    assert batch.labels[known].tolist() == [0, 0.25, 0.75, 0.5, 1]
    assert batch.inputs[known].tolist() == [5, 6, 7, 1, 2]


def test_of_a_text_in_parts_only_what_is_marked_is_said(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(["<12=3>"])
    texts = [
        Parts((("<1=", False), ("2>", False), ("<3=", False), ("1>", True))),
        Parts((("<2=", False), ("3>", True), ("<1=", False), ("12>", True))),
    ]
    corpus = encode_parts(texts, tokenizer, 10**9)
    batch = collate(corpus, np.array([0, 1]))
    spoken = [
        tokenizer.decode(row[row != IGNORED].tolist(), skip_special_tokens=False)
        for row in batch.targets
    ]
    assert spoken == ["1>", "3>12>"]
    save_corpus(corpus, tmp_path / "corpus.npz")
    again = load_corpus(tmp_path / "corpus.npz").rows([1, 0])
    np.testing.assert_array_equal(collate(again, np.array([1, 0])).targets, batch.targets)
    with pytest.raises(InputError, match="outside"):
        encode_parts([Parts((("what?", True),))], tokenizer, 10)
