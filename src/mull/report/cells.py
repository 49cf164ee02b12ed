"""A finished cell of a run as one plain row: small enough to commit, enough to compare later.

A row keeps which problems were right (a bit each), so that cells from different sittings are still
compared problem by problem; the raw samples stay with whoever ran them. It names the weights that
wrote and scored, so that rows of an older verifier are never taken for a newer one's. What the
problems asked is kept once for all rows of a set, as digests of their prompts: equal ones are one
puzzle met again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mull.budget import Purpose
from mull.catalog import load_strategy
from mull.catalog.strategies import strategy_names
from mull.errors import InputError, SpecError
from mull.fileio import safe_name, write_atomic
from mull.runs.cells import Cell
from mull.runs.records import ProblemRecord, Records
from mull.runs.result import ResultRecord
from mull.strategies.base import Strategy
from mull.strategies.needs import POLICY, needs_of
from mull.strategies.revise import Mixed, Revise
from mull.strategies.single import Greedy
from mull.verifiers.steps import pieces

Floats = NDArray[np.float64]
GUESSES = Purpose.SPECULATIVE.value
VERIFYING = (Purpose.VERIFIER.value, Purpose.JUDGE.value)
PROMPTS = "prompts.json"
"""The file beside the rows that has the digests of each set's prompts, by the set's digest."""
SEPARATOR = "\n"
"""What ends a step when the steps of a winner are counted."""
FEW = 2
"""A solution of so few steps is short: the mark of a search that exploits its verifier."""


@dataclass(frozen=True)
class CellRow:
    """One finished cell: a strategy with ``n`` samples a problem, on the problems of a task.

    ``strategy`` is its spec, with ``, T=0.7`` behind it where the temperature was not 1.
    ``right`` has one bit a problem as hex, ``levels`` one level a problem. FLOPs and ``tokens`` are
    means a problem. ``models`` says who took part, by the names that the strategy uses
    (``policy``, ``reviser``, ``prm``): ``kind:model@revision``; rows of before that was kept have
    none. ``winner_*`` are means over the problems with an answer, of the candidate that stands for
    it; ``short_winners`` is the share of them with ``FEW`` steps or fewer. ``turns`` has the bits
    of attempt 1, 2 … of the first chain, where a strategy revises. ``prompts`` are digests of the
    problems' prompts (``prompt_digest``), where they are known; they are kept beside the rows.
    """

    task: str
    policy: str
    strategy: str
    n: int
    seed: int
    problems: int
    digest: str
    verifiers: dict[str, str]
    right: str
    levels: str
    policy_flops: float
    verifier_flops: float
    guesses_flops: float
    tokens: float
    unanswered: float
    config_hash: str
    models: dict[str, str] = field(default_factory=dict)
    winner_score: float | None = None
    winner_tokens: float | None = None
    winner_steps: float | None = None
    short_winners: float | None = None
    turns: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()

    @property
    def correct(self) -> Floats:
        """One 0 or 1 a problem, in the problems' order."""
        return unpacked(self.right, self.problems)

    @property
    def by_turn(self) -> Floats:
        """Right or wrong at each turn of the first chain, [turns, problems]."""
        bits = [unpacked(turn, self.problems) for turn in self.turns]
        return np.array(bits).reshape(len(bits), self.problems)

    @property
    def puzzles(self) -> NDArray[np.str_]:
        """Which puzzle each problem is: one is the same in all rows; all differ if unknown."""
        return np.array(self.prompts or [f"{self.digest}/{at}" for at in range(self.problems)])

    @property
    def flops(self) -> float:
        """FLOPs a problem, the verifier's included.

        Without wrong guesses ahead: idle slots made them, how many depends on timing, and no result
        does; ``guesses_flops`` has them apart.
        """
        return self.policy_flops + self.verifier_flops

    @property
    def unit(self) -> tuple[str, int, str]:
        """What a comparison is paired within: the policy, the seed and the problems."""
        return self.policy, self.seed, self.digest

    @property
    def key(self) -> tuple[str, str, str, int, int, str]:
        """What a row is known by; a newer row of the same key takes its place."""
        return self.task, self.policy, self.strategy, self.n, self.seed, self.digest


def packed(bits: Iterable[bool]) -> str:
    """Bits as hex.

    >>> unpacked(packed([True, False, True]), 3).tolist()
    [1.0, 0.0, 1.0]
    """
    return np.packbits(np.array(list(bits), dtype=np.uint8)).tobytes().hex()


def unpacked(bits: str, count: int) -> Floats:
    """The first ``count`` bits of a hex text as 0 and 1."""
    found = np.unpackbits(np.frombuffer(bytes.fromhex(bits), np.uint8))
    return found[:count].astype(np.float64)


def rows_of(directory: str | Path) -> Iterator[CellRow]:
    """The finished cells of a run whose budget says how many samples.

    Greedy decoding has one. Raises ``StoreError`` for a directory that holds no run, ``InputError``
    for a cell with failures or with answers that have no verdict (a row says right or wrong of
    every problem), and for a strategy with options that this version does not know.
    """
    with Records(directory) as records:
        problems = list(records.problems())
        for cell in records.cells:
            strategy = _strategy(cell.strategy)
            n = _samples(cell, strategy)
            results = [] if n is None else list(records.results(cell))
            if n is not None and len(results) == len(problems) > 0:
                _check(directory, cell, results)
                yield _row(records, cell, strategy, n, results, problems)


def prompt_digest(prompt: str) -> str:
    """64 bits, as hex, of a prompt's SHA-256, numbers that stand in a row taken in any order.

    >>> prompt_digest("Make 8 from 2 3 4.") == prompt_digest("Make 8 from 4 2 3.")
    True
    >>> prompt_digest("Make 8 from 2 3 4.") == prompt_digest("Make 2 from 8 3 4.")
    False
    """
    plain = re.sub(r"\d+(?: \d+)+", lambda found: " ".join(sorted(found[0].split())), prompt)
    return hashlib.sha256(plain.encode()).hexdigest()[:16]


def _samples(cell: Cell, strategy: Strategy | None) -> int | None:
    """How many samples a problem a cell has; ``None`` where nobody said."""
    if isinstance(strategy, Greedy):
        return 1
    return None if cell.budget is None else cell.budget.samples


def _check(directory: str | Path, cell: Cell, results: Sequence[ResultRecord]) -> None:
    failed = [result.failures[0] for result in results if result.failures]
    if failed:
        raise InputError(
            f"{directory}: {cell.id}: {len(failed)} of {len(results)} results have failures, as "
            f"in: {failed[0]}; mend their cause and run it again, so that every sample comes"
        )
    without = Counter(result.outcome for result in results if result.correct is None)
    if without:
        said = ", ".join(f"{count} {outcome}" for outcome, count in sorted(without.items()))
        raise InputError(
            f"{directory}: {cell.id}: answers without a verdict ({said} of {len(results)}); "
            "expected right or wrong of every problem: make a new run, with gold answers and a "
            "grader that judges them"
        )


def _row(
    records: Records,
    cell: Cell,
    strategy: Strategy | None,
    n: int,
    results: Sequence[ResultRecord],
    problems: Sequence[ProblemRecord],
) -> CellRow:
    config, count = records.config, len(results)
    spent = [row for result in results for row in result.spent]
    flops = {"policy": 0.0, "verifier": 0.0, "guesses": 0.0}
    for row in spent:
        kind = "verifier" if row.purpose in VERIFYING else "policy"
        flops["guesses" if row.purpose == GUESSES else kind] += row.usage.flops
    return CellRow(
        task=str(config["task"]),
        policy=str(config["model"]),
        strategy=cell.strategy + _hotter(cell.temperature),
        n=n,
        seed=cell.seed,
        problems=count,
        digest=str(config["problems_digest"])[:16],
        verifiers=dict(config.get("verifiers") or {}),
        right=packed(result.correct is True for result in results),
        levels=",".join(str(problem.level).replace(",", ";") for problem in problems),
        policy_flops=flops["policy"] / count,
        verifier_flops=flops["verifier"] / count,
        guesses_flops=flops["guesses"] / count,
        tokens=sum(r.usage.generated for r in spent if r.purpose != GUESSES) / count,
        unanswered=sum(result.answer is None for result in results) / count,
        config_hash=records.config_hash[:16],
        models=_models(config, strategy),
        turns=_turns(strategy, n, results),
        prompts=tuple(prompt_digest(problem.text) for problem in problems),
        **_winners(strategy, results),
    )


def _hotter(temperature: float | None) -> str:
    """Another temperature than 1 is part of the name: such cells are other strategies."""
    return "" if temperature in (None, 1.0) else f", T={temperature:g}"


def _strategy(spec: str) -> Strategy | None:
    """The strategy behind a recorded name; ``None`` where it was the caller's own object."""
    try:
        return load_strategy(spec)
    except (SpecError, OSError) as error:
        if spec.partition("(")[0] in strategy_names():
            raise InputError(
                f"{spec} was recorded by another version, whose options it has ({error}); make the "
                "rows with that version, or run it again"
            ) from error
        return None


def _models(config: Mapping[str, Any], strategy: Strategy | None) -> dict[str, str]:
    """Who took part in a cell; all that the run had where the strategy is not known by its name."""
    known = {
        POLICY: config["engine_identity"],
        **config.get("engine_identities", {}),
        **config.get("verifier_identities", {}),
    }
    if strategy is not None:
        needs = needs_of(strategy)
        known = {name: known[name] for name in (*needs.engines, *needs.verifiers) if name in known}
    return {name: f"{who[0]}:{who[1]}@{who[2]}" for name, who in sorted(known.items())}


def _winners(strategy: Strategy | None, results: Sequence[ResultRecord]) -> dict[str, float]:
    """Means over the candidates that stand for the answers; nothing where there is none."""
    winners = [r.candidates[r.index] for r in results if r.index is not None]
    if not winners:
        return {}
    steps = [len(pieces(winner.text, SEPARATOR)) for winner in winners]
    found = {
        "winner_tokens": fmean(winner.tokens for winner in winners),
        "winner_steps": fmean(steps),
        "short_winners": fmean(count <= FEW for count in steps),
    }
    names = needs_of(strategy).verifiers if strategy is not None else ()
    scores = [w.scores[name] for w in winners for name in names[:1] if name in w.scores]
    return {**found, "winner_score": fmean(scores)} if scores else found


def _turns(strategy: Strategy | None, n: int, results: Sequence[ResultRecord]) -> tuple[str, ...]:
    """Bits of each attempt of the first chain; behind the end of a chain nothing is right."""
    if isinstance(strategy, Mixed):
        chains, length = strategy.shape(n)
    elif isinstance(strategy, Revise):
        chains, length = strategy.chains, n // strategy.chains
    else:
        return ()
    # In the order of their keys the attempts of a chain stand in the order they were made.
    made = [[c for c in r.candidates if c.key[0] % chains == 0] for r in results]
    return tuple(
        packed(turn < len(chain) and chain[turn].correct is True for chain in made)
        for turn in range(length if length > 1 else 0)
    )


def save(rows: Sequence[CellRow], folder: str | Path) -> list[Path]:
    """Add rows to the files of their tasks and policies; a row that is there already is replaced.

    One file ``<task>-<policy>.jsonl`` each, in the order of the rows' keys. Returns the files.
    """
    _save_prompts(rows, Path(folder))
    paths: list[Path] = []
    for task, policy in sorted({(row.task, row.policy) for row in rows}):
        path = Path(folder) / f"{safe_name(f'{task}-{policy}')}.jsonl"
        known = {row.key: row for row in load(path)}
        known.update({row.key: row for row in rows if (row.task, row.policy) == (task, policy)})
        path.parent.mkdir(parents=True, exist_ok=True)
        ordered = sorted(known.values(), key=lambda row: row.key)
        write_atomic(path, "".join(map(_line, ordered)))
        paths.append(path)
    return paths


def _line(row: CellRow) -> str:
    plain = asdict(row)
    del plain["prompts"]
    return json.dumps(plain) + "\n"


def _save_prompts(rows: Sequence[CellRow], folder: Path) -> None:
    """What the problems of the rows asked, added to what the folder knows."""
    known = _load_prompts(folder)
    known.update({row.digest: row.prompts for row in rows if row.prompts})
    if known:
        folder.mkdir(parents=True, exist_ok=True)
        lines = [f"{json.dumps(digest)}: {json.dumps(known[digest])}" for digest in sorted(known)]
        write_atomic(folder / PROMPTS, "{\n" + ",\n".join(lines) + "\n}\n")


def _load_prompts(folder: Path) -> dict[str, tuple[str, ...]]:
    path = folder / PROMPTS
    if not path.exists():
        return {}
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        return {digest: tuple(prompts) for digest, prompts in read.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: no digests of prompts by set of problems ({error}); remove it, and make the "
            "rows again from the runs"
        ) from error


def load(path: str | Path) -> list[CellRow]:
    """The rows of a file, or of all ``.jsonl`` files of a folder; none where there is nothing.

    Raises ``InputError`` for a line that is no row, and for digests of prompts that are not theirs.
    """
    source = Path(path)
    folder = source if source.is_dir() else source.parent
    prompts = _load_prompts(folder)
    rows: list[CellRow] = []
    for file in sorted(source.glob("*.jsonl")) if source.is_dir() else [source]:
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        rows += [_read(line, f"{file}:{number}") for number, line in enumerate(lines, 1)]
    for row in rows:
        known = prompts.get(row.digest)
        if known is not None and len(known) != row.problems:
            raise InputError(
                f"{folder / PROMPTS}: {len(known)} digests for the {row.problems} problems of set "
                f"{row.digest}; remove it, and make the rows again from the runs"
            )
    return [replace(row, prompts=prompts.get(row.digest, ())) for row in rows]


def _read(line: str, place: str) -> CellRow:
    names = {each.name for each in fields(CellRow)} - {"prompts"}
    try:
        data = json.loads(line)
        return CellRow(**{**data, "turns": tuple(data.get("turns", ()))})
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{place}: no row of a cell ({error}); expected one JSON object with "
            f"{', '.join(sorted(names))}: make the rows again from the run"
        ) from error
