"""Examples → batches of token ids: encoding, length buckets, right padding.

Every batch is a pure function of (corpus, batch size, seed, epoch, position), so that a resumed
training sees the very batches that an unbroken one sees.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from mull.engines.adapt import Parts as Parts  # noqa: PLC0414  (a training text like Example)
from mull.errors import InputError
from mull.fileio import write_atomic

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Rows of a batch are padded to a multiple of this: fewer shapes, so the allocator reuses blocks.
_LENGTH_STEP: Final = 8
_ENCODE_AT_ONCE: Final = 2048


@dataclass(frozen=True, slots=True)
class Example:
    """One training text: what is asked and what is to be said.

    ``ids`` are the solution's exact tokens where a model made it, the end token among them if it
    ended; text that a model made need not give the same tokens when it is read again.
    """

    prompt: str
    solution: str
    ids: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Labelled:
    """A solution with what is known of it.

    ``labels`` [steps] are probabilities in 0..1, NaN for a step that says nothing; a step ends with
    ``separator``, and the solution's last step with its end. ``ids`` as in ``Example``.
    """

    prompt: str
    solution: str
    labels: tuple[float, ...]
    separator: str = "\n"
    ids: tuple[int, ...] | None = None


Asked = TypeVar("Asked", bound=Example | Labelled)


@dataclass(frozen=True)
class Corpus:
    """Encoded examples, flat.

    ``ids`` [tokens] uint16: ``<bos> prompt solution <eos>`` of every example in a row; ``starts``
    [examples + 1] int64 offsets into it; ``prompts`` [examples] int32 counts the tokens of
    ``<bos> prompt``, those that the model is given and does not have to say. ``labels`` [tokens]
    float32, where the examples are labelled: what a value head should say there, NaN for nothing.
    ``said`` [tokens] bool, where what is to be said is not simply all that follows the prompt.
    """

    ids: NDArray[np.uint16]
    starts: NDArray[np.int64]
    prompts: NDArray[np.int32]
    labels: NDArray[np.float32] | None = None
    said: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def tokens(self) -> int:
        """All tokens, padding not counted."""
        return len(self.ids)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each example [examples]."""
        return np.diff(self.starts)

    @cached_property
    def identity(self) -> str:
        """A digest of all that is in it."""
        digest = hashlib.blake2b(digest_size=8)
        for name in (field.name for field in fields(self)):
            array = getattr(self, name)
            digest.update(f"{name} {'' if array is None else len(array)};".encode())
            if array is not None:
                digest.update(np.ascontiguousarray(array).data)
        return f"{len(self)} examples {digest.hexdigest()}"

    def rows(self, rows: Sequence[int]) -> Corpus:
        """Some of the examples, in the given order."""
        spans = [slice(int(self.starts[r]), int(self.starts[r + 1])) for r in rows]
        starts = np.concatenate([[0], np.cumsum(self.lengths[list(rows)])]).astype(np.int64)
        ids = np.concatenate([self.ids[span] for span in spans])
        labels, said = self.labels, self.said
        if labels is not None:
            labels = np.concatenate([labels[span] for span in spans])
        if said is not None:
            said = np.concatenate([said[span] for span in spans])
        return Corpus(ids, starts, self.prompts[list(rows)], labels, said)

    def take(self, tokens: int) -> Corpus:
        """The first examples that hold at least ``tokens`` tokens."""
        count = min(int(np.searchsorted(self.starts, tokens)), len(self))
        end = int(self.starts[count])
        labels = None if self.labels is None else self.labels[:end]
        said = None if self.said is None else self.said[:end]
        return Corpus(self.ids[:end], self.starts[: count + 1], self.prompts[:count], labels, said)


def encode(
    examples: Iterable[Example], tokenizer: Tokenizer, tokens: int, *, drop_unknown: bool = False
) -> Corpus:
    """Encode examples until there are ``tokens`` tokens or no examples are left.

    ``drop_unknown`` leaves out examples that hold something outside the vocabulary: what a model
    said need not read back as its own tokens.

    Raises:
        InputError: there is no example, or a text holds something outside the vocabulary.
    """
    pieces: list[NDArray[np.uint16]] = []
    prompts: list[int] = []
    total = 0
    for _, ids, prompt in encoded(examples, tokenizer, drop_unknown=drop_unknown):
        pieces.append(np.array(ids, dtype=np.uint16))
        prompts.append(prompt)
        total += len(ids)
        if total >= tokens:
            break
    return corpus_of(pieces, prompts)


def encoded(
    examples: Iterable[Asked], tokenizer: Tokenizer, *, drop_unknown: bool = False
) -> Iterator[tuple[Asked, list[int], int]]:
    """Examples with their ids, and how many of them are given: one by one what ``encode`` joins."""
    begin, end, unknown = (_special(tokenizer, name) for name in ("<bos>", "<eos>", "<unk>"))
    source = iter(examples)
    while chunk := list(islice(source, _ENCODE_AT_ONCE)):
        asked = tokenizer.encode_batch([e.prompt for e in chunk], add_special_tokens=False)
        said = tokenizer.encode_batch([e.solution for e in chunk], add_special_tokens=False)
        for example, prompt, solution in zip(chunk, asked, said, strict=True):
            made = [*solution.ids, end] if example.ids is None else [*example.ids]
            ids = [begin, *prompt.ids, *made]
            if unknown in (ids if example.ids is None else prompt.ids):
                if drop_unknown:
                    continue
                text = (example.prompt + example.solution)[:120]
                raise InputError(f"training text outside the tokenizer's vocabulary: {text!r}")
            yield example, ids, len(prompt.ids) + 1


def corpus_of(
    pieces: Sequence[NDArray[np.uint16]],
    prompts: Sequence[int],
    labels: Sequence[NDArray[np.float32]] | None = None,
) -> Corpus:
    """The corpus of encoded examples; ``InputError`` where there is none."""
    if not pieces:
        raise InputError("no training examples")
    starts = np.concatenate([[0], np.cumsum([len(ids) for ids in pieces])]).astype(np.int64)
    joined = None if labels is None else np.concatenate(labels)
    return Corpus(np.concatenate(pieces), starts, np.array(prompts, dtype=np.int32), joined)


def encode_parts(texts: Iterable[Parts], tokenizer: Tokenizer, tokens: int) -> Corpus:
    """Encode texts in parts until there are ``tokens`` tokens or no texts are left.

    Parts are encoded one by one, so that a border between them is one between tokens.

    Raises:
        InputError: there is no text, or one holds something outside the vocabulary.
    """
    begin, unknown = (_special(tokenizer, name) for name in ("<bos>", "<unk>"))
    ids: list[NDArray[np.uint16]] = []
    said: list[NDArray[np.bool_]] = []
    source = iter(texts)
    lengths: list[int] = []
    while sum(lengths) < tokens and (chunk := list(islice(source, _ENCODE_AT_ONCE))):
        flat = [text for each in chunk for text, _ in each.parts]
        encoded = iter(tokenizer.encode_batch(flat, add_special_tokens=False))
        for each in chunk:
            found = [(next(encoded).ids, speak) for _, speak in each.parts]
            row = [begin, *(i for part, _ in found for i in part)]
            if unknown in row:
                raise InputError(
                    f"training text outside the tokenizer's vocabulary: {each.text[:120]!r}"
                )
            ids.append(np.array(row, dtype=np.uint16))
            said.append(
                np.repeat([False, *(s for _, s in found)], [1, *(len(p) for p, _ in found)])
            )
            lengths.append(len(row))
    if not ids:
        raise InputError("no training texts")
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    given = np.array([int(np.argmax(mask)) for mask in said], dtype=np.int32)
    return Corpus(np.concatenate(ids), starts, given, None, np.concatenate(said)).take(tokens)


def fitting(corpus: Corpus, context: int) -> Corpus:
    """The examples that fit a context of so many tokens; ``InputError`` where none does."""
    rows = [row for row, length in enumerate(corpus.lengths) if length <= context]
    if not rows:
        raise InputError(
            f"every example is longer than the context of {context} tokens; expected some that "
            "fit: raise context, or shorten the texts"
        )
    return corpus if len(rows) == len(corpus) else corpus.rows(rows)


def save_corpus(corpus: Corpus, path: Path) -> None:
    """Write a corpus (npz, no pickle): seeds and sizes of one family share the same text."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {field.name: getattr(corpus, field.name) for field in fields(corpus)}
    np.savez(buffer, **{name: array for name, array in arrays.items() if array is not None})
    write_atomic(path, buffer.getvalue())


def load_corpus(path: Path) -> Corpus:
    """Read what :func:`save_corpus` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        return Corpus(**arrays)


@dataclass(frozen=True)
class Batch:
    """Right-padded rows, shifted by one.

    ``inputs`` [rows, length] int64; ``targets`` [rows, length] int64, the next token, and
    ``IGNORED`` where no loss is taken (prompt and padding); ``tokens`` counts the real tokens.
    Padding follows every real token, so causal attention needs no mask. ``labels`` [rows, length]
    float32 stand on the inputs themselves, NaN where there is none.
    """

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]
    tokens: int
    labels: NDArray[np.float32] | None = None


IGNORED: Final = -100


def batches(corpus: Corpus, batch_tokens: int, seed: int, first: int = 0) -> Iterator[Batch]:
    """Batches for ever, epoch after epoch, from batch ``first`` on.

    A batch holds examples of like length (at least one): the longest of them times their number is
    at most ``batch_tokens`` tokens, before ``collate`` rounds the length up. Order of examples and
    batches is drawn anew every epoch.
    """
    position = 0
    epoch = 0
    while True:
        plan = _plan(corpus, batch_tokens, seed, epoch)
        for rows in plan[max(first - position, 0) :]:
            yield collate(corpus, rows)
        position += len(plan)
        epoch += 1


def collate(corpus: Corpus, rows: NDArray[np.int64]) -> Batch:
    """The batch of these examples."""
    lengths = corpus.lengths[rows]
    width = padded_length(int(lengths.max()))
    padded = np.zeros((len(rows), width + 1), dtype=np.int64)
    columns = np.arange(width + 1)
    real = columns[None] < lengths[:, None]

    def spread(of: NDArray[Any], into: NDArray[Any]) -> NDArray[Any]:
        into[real] = np.concatenate([of[corpus.starts[r] : corpus.starts[r + 1]] for r in rows])
        return into

    spread(corpus.ids, padded)
    said = real & (columns[None] >= corpus.prompts[rows][:, None])
    if corpus.said is not None:
        said = spread(corpus.said, np.zeros(real.shape, dtype=np.bool_))
    targets = np.where(said, padded, IGNORED)
    labels = None
    if corpus.labels is not None:
        labels = spread(corpus.labels, np.full(real.shape, np.nan, dtype=np.float32))[:, :-1]
    return Batch(padded[:, :-1], targets[:, 1:], int(lengths.sum()), labels)


def padded_length(length: int) -> int:
    """The length of the rows of a batch whose longest example has so many tokens.

    >>> padded_length(57)
    64
    """
    return -(-length // _LENGTH_STEP) * _LENGTH_STEP


def _plan(corpus: Corpus, batch_tokens: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Example numbers of each batch of an epoch."""
    rng = np.random.default_rng((seed, epoch))
    lengths = corpus.lengths
    order = rng.permutation(len(corpus))
    # Sorting within shuffled pools rather than over the whole corpus keeps batches of one length
    # from being the same company every epoch.
    plan: list[NDArray[np.int64]] = []
    pool = max(1, 64 * batch_tokens // max(1, int(lengths.mean())))
    for begin in range(0, len(order), pool):
        rows = order[begin : begin + pool]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        start = 0
        for stop in range(1, len(rows) + 1):
            longest = int(lengths[rows[stop]]) if stop < len(rows) else 0
            if stop == len(rows) or longest * (stop + 1 - start) > batch_tokens:
                plan.append(rows[start:stop])
                start = stop
    return [plan[i] for i in rng.permutation(len(plan))]


def _special(tokenizer: Tokenizer, name: str) -> int:
    token = tokenizer.token_to_id(name)
    if token is None:
        raise InputError(f"the tokenizer has no {name} token")
    return int(token)
