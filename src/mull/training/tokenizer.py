"""A closed-vocabulary tokenizer: one token a word, a digit, a sign, a newline; nothing lost.

Tokens carry the space before them (``" pears"``, ``" 1"``, ``"7"``), so joining them gives the text
back to the byte, and the first digit of a number differs from the later ones, which tells a small
model the place of a digit.  It is an ordinary Hugging Face tokenizer (WordLevel), loadable with
``AutoTokenizer``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mull.fileio import write_atomic

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL: Final = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>"}
UNKNOWN: Final = "<unk>"
# Alternatives in order: newline, word, one digit, one sign; then any lone character, so that the
# split covers every text and what the vocabulary lacks is seen as <unk>.
_PIECE: Final = r"\n| ?[A-Za-z]+| ?[0-9]| ?[^\sA-Za-z0-9]|\s"


def build_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """The tokenizer whose vocabulary is every piece that occurs in ``texts``.

    Ids: <pad> 0, <bos> 1, <eos> 2, <unk> 3, then the pieces in alphabetical order, so that the
    same language gives the same ids whatever the order of the texts.  Encoding puts <bos> first
    unless told otherwise; decoding leaves special tokens out.

    >>> tokenizer = build_tokenizer(["pears = 17\\n"])
    >>> tokenizer.decode(tokenizer.encode("pears = 17\\n").ids)
    'pears = 17\\n'
    """
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        pre_tokenizers,
        processors,
    )

    split = pre_tokenizers.Split(Regex(_PIECE), behavior="isolated")
    pieces = {piece for text in texts for piece, _ in split.pre_tokenize_str(text)}
    names = [*SPECIAL.values(), UNKNOWN, *sorted(pieces)]
    vocabulary = {name: index for index, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.Fuse()
    # Whoever encodes a prompt gets what the model saw in training, <bos> first.
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", vocabulary["<bos>"])]
    )
    tokenizer.add_special_tokens(
        [AddedToken(name, special=True) for name in (*SPECIAL.values(), UNKNOWN)]
    )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, context: int) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json``; ``context`` in tokens."""
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **SPECIAL,
        "unk_token": UNKNOWN,
        "model_max_length": context,
        # It would eat the spaces before signs.
        "clean_up_tokenization_spaces": False,
        "padding_side": "right",
    }
    write_atomic(folder / "tokenizer.json", tokenizer.to_str(pretty=True))
    write_atomic(folder / "tokenizer_config.json", json.dumps(config, indent=2) + "\n")


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read ``tokenizer.json`` of a model folder."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "tokenizer.json"))
