"""The simulator's tokenizer: one token a UTF-8 byte, and one for the end of the turn.

Exact, reversible and free of files: the tokens of a text are its bytes, so a text drawn with 37
bytes costs 37 tokens wherever it is counted.
"""

from __future__ import annotations

from mull.errors import UnsupportedError
from mull.types import Prompt

END_ID = 256
"""The end-of-turn token."""


def encode(text: str) -> bytes:
    """Token ids of a text, each 0..255; ``bytes`` is a sequence of ints."""
    return text.encode("utf-8", "surrogatepass")


def decode(ids: bytes) -> str:
    """Text of token ids; a character that was cut at either end is held back."""
    return ids.decode("utf-8", "ignore")


def prompt_text(prompt: Prompt) -> str:
    """The prompt as the simulator reads it; token ids are bytes, end tokens are dropped."""
    if prompt.token_ids is None:
        return prompt.plain
    try:
        return decode(bytes(i for i in prompt.token_ids if i != END_ID))
    except ValueError:
        raise UnsupportedError(
            "the simulator's token ids are bytes (0..255) and 256 for the end of a turn; "
            "this prompt has others: send text, or ids made by a simulated engine"
        ) from None
