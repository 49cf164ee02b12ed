"""One seed becomes a seed for every (run, problem, branch key), whatever the order or machine."""

from __future__ import annotations

import hashlib

Part = int | str | tuple[int, ...]


def derive(seed: int, *parts: Part) -> int:
    """A 63-bit seed from a seed and a path of parts; equal paths give equal seeds everywhere.

    BLAKE2b over the typed, delimited parts, so ``(1, 23)`` and ``(12, 3)`` differ and ``"1"`` is
    not ``1``. Not cryptographic use: any good mixing function would do.

    >>> derive(0, "p7")
    6450571264692097761
    >>> derive(0, 1, 23) == derive(0, 12, 3)
    False
    """
    # ascii, not repr: which characters repr escapes changes with the Unicode tables of a Python.
    path = ascii((seed, *parts)).encode()
    return int.from_bytes(hashlib.blake2b(path, digest_size=8).digest(), "big") >> 1
