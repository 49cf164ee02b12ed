"""Text ↔ token ids: prompts with exactly the family's BOS, and pieces that concatenate to text.

A tokenizer's decoder is usually a concatenation of one byte string a token. Where that is so (it
is tried on random sequences when a model is loaded), text is a join, stop strings are matched on
bytes, and a table says which tokens can complete one; else text is decoded again a token.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import random
import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mull.errors import ContextError, UnsupportedError
from mull.types import Prompt

Tokens = Sequence[int] | NDArray[np.int32]
PROMPTS_KEPT = 4096
TRIALS = 64


class Text:
    """One tokenizer's face. ``bos`` is what the family puts before every text, often nothing."""

    def __init__(self, tokenizer: Any, vocab: int) -> None:
        self.tokenizer = tokenizer
        self.vocab = vocab
        self.special = frozenset(int(token) for token in tokenizer.all_special_ids)
        self._names = tuple(str(name) for name in tokenizer.all_special_tokens)
        self.eos: int | None = tokenizer.eos_token_id
        self.template: str | None = tokenizer.chat_template
        self.bos = self._prefix()
        self._prompts: OrderedDict[tuple[Prompt, str], tuple[int, ...]] = OrderedDict()
        self._pieces: list[bytes] | None = None
        self._looked = False

    @property
    def digest(self) -> str:
        """Identity of the tokenizer: vocabulary, merges and rules."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        raw = backend.to_str() if backend is not None else json.dumps(self.tokenizer.get_vocab())
        return _digest(raw)

    @property
    def template_digest(self) -> str:
        """Identity of the chat template, empty if there is none."""
        return _digest(str(self.template)) if self.template else ""

    def encode(self, text: str, special: bool = False) -> list[int]:
        """Token ids of text as it stands, nothing added.

        The names of special tokens are plain characters, as whoever wrote the text may have meant
        them; with ``special`` they are the tokens themselves.
        """
        ids: list[int] = self.tokenizer.encode(
            text, add_special_tokens=False, verbose=False, split_special_tokens=not special
        )
        return ids

    def piece(self, text: str) -> list[int]:
        """Token ids of a piece of a text; one that is a special token's name is that token."""
        return self.encode(text, special=text in self._names)

    def prompt(self, prompt: Prompt, assistant: str = "") -> tuple[int, ...]:
        """Ids of a prompt and the assistant's text so far, BOS exactly as the family has it.

        Both are tokenised as one text, as they were in training. ``token_ids`` stay as they are.
        Special tokens come from the chat template and from ``text``, which stands as it is: what a
        turn or the assistant writes is never one, so that no content ends a turn or begins one.
        """
        key = (prompt, assistant)
        known = self._prompts.get(key)
        if known is not None:
            self._prompts.move_to_end(key)
            return known
        if prompt.token_ids is not None:
            ids = [*prompt.token_ids, *(self.encode(assistant) if assistant else ())]
        else:
            parts = [*self._parts(prompt), (assistant, False)]
            if not any(self._forges(text) for text, special in parts if not special):
                parts = [("".join(text for text, _ in parts), True)]
            ids = [token for text, special in parts for token in self.encode(text, special)]
            if self.bos and tuple(ids[: len(self.bos)]) != self.bos:
                ids = [*self.bos, *ids]
        wrong = [token for token in ids if not 0 <= token < self.vocab]
        if wrong:
            raise ContextError(
                f"prompt token id {wrong[0]} is outside the model's vocabulary of {self.vocab}"
            )
        result = self._prompts[key] = tuple(ids)
        if len(self._prompts) > PROMPTS_KEPT:
            self._prompts.popitem(last=False)
        return result

    def decode(self, ids: Tokens, before: Sequence[int] = ()) -> str:
        """Text of ``ids`` as it continues ``before`` (the last few tokens are enough)."""
        pieces = self.pieces()
        if pieces is not None:
            return b"".join([pieces[token] for token in ids]).decode("utf-8", "replace")
        head = list(before[-4:])
        start = len(self._raw(head)) if head else 0
        return self._raw([*head, *map(int, ids)])[start:]

    def pieces(self) -> list[bytes] | None:
        """One byte string a token id, if text is their concatenation; worked out once."""
        if not self._looked:
            self._pieces = self._find_pieces()
            self._looked = True
        return self._pieces

    def _forges(self, text: str) -> bool:
        """Whether a text holds the name of a special token."""
        return any(name in text for name in self._names)

    def _parts(self, prompt: Prompt) -> list[tuple[str, bool]]:
        """A prompt's text in pieces: (text, whether special tokens in it are meant)."""
        if prompt.text is not None:
            return [(prompt.text, True)]
        if not self.template:
            if len(prompt.messages) == 1 and prompt.messages[0].role == "user":
                return [(prompt.messages[0].content, False)]
            raise UnsupportedError(
                "the model's tokenizer has no chat template: send text or one user message"
            )
        # A turn that holds a special token's name is rendered as a word that stands for it.
        words = {_digest(t.content): t.content for t in prompt.messages if self._forges(t.content)}
        standing = {content: word for word, content in words.items()}
        rendered: str = self.tokenizer.apply_chat_template(
            [
                {"role": turn.role, "content": standing.get(turn.content, turn.content)}
                for turn in prompt.messages
            ],
            tokenize=False,
            add_generation_prompt=True,
        )
        if not words:
            return [(rendered, True)]
        pieces = re.split(f"({'|'.join(words)})", rendered)
        return [(words.get(piece, piece), piece not in words) for piece in pieces if piece]

    def _prefix(self) -> tuple[int, ...]:
        """What the tokenizer itself puts before a text (and nothing of what it puts behind)."""
        plain = self.encode("a")
        full: list[int] = self.tokenizer.encode("a", add_special_tokens=True)
        for start in range(len(full) - len(plain) + 1):
            if full[start : start + len(plain)] == plain:
                return tuple(full[:start])
        return ()

    def _raw(self, ids: list[int]) -> str:
        text: str = self.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def _find_pieces(self) -> list[bytes] | None:
        tokens: list[str | None] = list(
            self.tokenizer.convert_ids_to_tokens(list(range(len(self.tokenizer))))
        )
        added = set(self.tokenizer.get_added_vocab().values())
        usable = [
            token
            for token, name in enumerate(tokens[: self.vocab])
            if name and token not in self.special
        ]
        if not usable:
            return None
        anchor = next((t for t in usable if str(tokens[t]).isascii() and t not in added), usable[0])
        for make in (self._byte_level, self._byte_fallback, self._anchored):
            table = make(tokens, added, anchor)
            if table is None:
                continue
            table += [b""] * (self.vocab - len(table))
            for token in self.special:
                if token < len(table):
                    table[token] = b""
            if self._concatenates(table, tokens, usable, anchor):
                return table
        return None

    def _byte_level(
        self, tokens: list[str | None], added: set[int], anchor: int
    ) -> list[bytes] | None:
        """GPT-2's alphabet: every character of a token stands for one byte."""
        alphabet = _byte_alphabet()
        table = []
        for token, name in enumerate(tokens):
            if name is None:
                table.append(b"")
            elif token in added:
                table.append(name.encode())
            elif all(char in alphabet for char in name):
                table.append(bytes(alphabet[char] for char in name))
            else:
                return None
        return table

    def _byte_fallback(
        self, tokens: list[str | None], added: set[int], anchor: int
    ) -> list[bytes] | None:
        """SentencePiece: ▁ is a space, <0x0A> one byte."""
        if "<0x0A>" not in tokens and not any("▁" in (name or "") for name in tokens):
            return None
        return [
            bytes([int(name[3:5], 16)])
            if name and len(name) == 6 and name.startswith("<0x")
            else (name or "").replace("▁", " ").encode()
            for name in tokens
        ]

    def _anchored(
        self, tokens: list[str | None], added: set[int], anchor: int
    ) -> list[bytes] | None:
        """What each token adds behind a fixed one: word-level tokenizers of any joining."""
        start = len(self._raw([anchor]))
        return [
            self._raw([anchor, token])[start:].encode() if name else b""
            for token, name in enumerate(tokens)
        ]

    def _concatenates(
        self, table: list[bytes], tokens: list[str | None], usable: list[int], anchor: int
    ) -> bool:
        """Try the table on random sequences; byte tokens apart, whose junk decodes many ways."""
        rng = random.Random(0)
        plain = [t for t in usable if not str(tokens[t]).startswith("<0x") and _whole(table[t])]
        if not plain:
            return False
        start = len(self._raw([anchor]))
        for _ in range(TRIALS):
            ids = [rng.choice(plain) for _ in range(12)]
            if self._raw([anchor, *ids])[start:].encode() != b"".join(table[t] for t in ids):
                return False
        return True


class TextStream:
    """Bytes of a growing text → characters that are certain; unfinished UTF-8 stays inside."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = b""

    def push(self, piece: bytes, keep: int = 0) -> str:
        """Text that is certain now, but for the last ``keep`` bytes."""
        self._held += piece
        ready = max(len(self._held) - keep, 0)
        out, self._held = self._held[:ready], self._held[ready:]
        return self._decoder.decode(out)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _whole(piece: bytes) -> bool:
    try:
        piece.decode()
    except UnicodeDecodeError:
        return False
    return True


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins: visible bytes are themselves, the rest from U+0100 on."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = {chr(byte): byte for byte in visible}
    hidden = [byte for byte in range(256) if byte not in set(visible)]
    alphabet.update({chr(256 + number): byte for number, byte in enumerate(hidden)})
    return alphabet
