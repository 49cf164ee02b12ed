"""Recorded trees → drawings: which to show, where each node stands, what is said beside it.

A depth is a column. Its nodes stand in the order of their parents, as near to them as the distance
between nodes lets them, so that columns of very different sizes fit one picture. Nothing is
rendered here: texts leave as texts, and the page's template escapes them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mull.report.data import BETWEEN, Cell, ProblemResult, Sample
from mull.runs.result import kept_tree
from mull.trees import Fate, TreeNode

CELLS = 6
"""Cells whose trees are drawn; of each at most three problems."""
NODES = 800
"""Nodes drawn of one tree."""
TITLE, TEXT, PROMPT, ANSWER = 200, 600, 400, 14
"""Characters of a node's text on hover and in the list, of a problem, of an answer at its node."""
WIDTH, LEFT, RIGHT, TOP = 880.0, 26.0, 92.0, 20.0
LETTER = 6.0
"""Width of a letter at a node."""
TONES = 9
Key = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Mark:
    """One node as it is drawn: place, radius, edge to its parent (a path), and what it says.

    ``tone`` is 0..8 by the score, -1 without one; ``way`` marks the way to the selected answer,
    ``chosen`` its end. ``note`` stands at (``note_x``, ``note_y``): behind a node that nothing
    follows or that has little room, else above it; what is wider than its column is left out there.
    ``right`` is the verdict on an end; ``title`` shows on hover.
    """

    x: float
    y: float
    r: float
    fate: str
    tone: int
    way: bool
    chosen: bool
    edge: str
    width: float
    note: str
    note_x: float
    note_y: float
    above: bool
    right: bool | None
    title: str


@dataclass(frozen=True, slots=True)
class Row:
    """One node in the list: depth from 0, fate, score, visits, text."""

    depth: int
    fate: str
    score: str
    visits: int
    chosen: bool
    text: str


@dataclass(frozen=True, slots=True)
class Picture:
    """One problem's tree, drawn; ``root`` is the place of the root.

    ``dense`` pictures have small letters; ``columns`` are the depths that have room for a number,
    each with its place; ``spent`` are the ledger's rows: purpose, completions,
    new prompt tokens, generated tokens.
    """

    why: str
    problem: ProblemResult
    prompt: str
    remark: str
    width: float
    height: float
    root: tuple[float, float]
    dense: bool
    columns: tuple[tuple[float, int], ...]
    marks: tuple[Mark, ...]
    rows: tuple[Row, ...]
    counts: Mapping[str, int]
    spent: tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Stand:
    """The pictures of one cell; ``low`` and ``high`` are the scores at the ends of the colours."""

    label: str
    pictures: tuple[Picture, ...]
    low: float
    high: float


@dataclass(slots=True)
class Grove:
    """Watches the problems of cells go by and keeps those whose trees are worth a drawing.

    Of a cell: the first solved, the first failed, and the largest. Cells that differ only in their
    seed are drawn once.
    """

    cells: int = CELLS
    _seen: dict[str, dict[str, ProblemResult]] = field(default_factory=dict)

    def watch(self, cell: Cell, run: str = "") -> Iterator[ProblemResult]:
        """The cell's problems, unchanged; ``run`` names its run where there are several."""
        label = BETWEEN.join(part for part in (run, cell.label) if part)
        fresh = label not in self._seen
        for problem in cell.problems:
            if problem.tree and fresh and (label in self._seen or len(self._seen) < self.cells):
                self._note(self._seen.setdefault(label, {}), problem)
            yield problem

    def stands(self) -> list[Stand]:
        """What was kept, drawn."""
        return [_stand(label, kept) for label, kept in self._seen.items()]

    def _note(self, kept: dict[str, ProblemResult], problem: ProblemResult) -> None:
        if problem.correct is not None:
            kept.setdefault("solved" if problem.correct else "failed", problem)
        before = kept.get("largest")
        if before is None or len(problem.tree) > len(before.tree):
            kept["largest"] = problem


def _stand(label: str, kept: Mapping[str, ProblemResult]) -> Stand:
    named: dict[str, tuple[list[str], ProblemResult]] = {}
    for why in ("solved", "failed", "largest"):
        if why in kept:
            named.setdefault(kept[why].id, ([], kept[why]))[0].append(why)
    scores = [n.score for p in kept.values() for n in p.tree if n.score is not None]
    low, high = min([0.0, *scores]), max([1.0, *scores])
    pictures = (draw(" and ".join(why), problem, low, high) for why, problem in named.values())
    return Stand(label, tuple(pictures), low, high)


def draw(why: str, problem: ProblemResult, low: float = 0.0, high: float = 1.0) -> Picture:
    """One problem's tree as a picture; scores from ``low`` to ``high`` span the colours."""
    tree = kept_tree(problem.tree, nodes=NODES)
    parents = parents_of([node.key for node in tree])
    depth = depths(parents)
    columns: list[list[TreeNode]] = [[] for _ in range(max(depth.values(), default=0))]
    for node in tree:
        columns[depth[node.key] - 1].append(node)
    widest = max(map(len, columns), default=1)
    pitch = min(max(420.0 / widest, 9.0), 44.0)
    places = place([[n.key for n in column] for column in columns], parents, pitch)
    top = min((y for _, y in places.values()), default=0.0)
    bottom = max((y for _, y in places.values()), default=0.0)
    shift = TOP + 22.0 - min(top, -pitch / 2)
    places = {key: (x, y + shift) for key, (x, y) in places.items()}
    ends = {sample.key: sample for sample in problem.samples}
    root, extended = (LEFT, shift), frozenset(parents.values())
    gap = _column(2, len(columns)) - _column(1, len(columns))
    every = math.ceil(3 * LETTER / gap)
    pen = _Pen(problem, ends, pitch, gap, low, high, parents, places, root, extended)
    omitted = problem.left_out + len(problem.tree) - len(tree)
    return Picture(
        why,
        problem,
        cut(problem.prompt, PROMPT),
        f"{omitted:,} more nodes are not drawn." if omitted else "",
        WIDTH,
        shift + max(bottom, pitch / 2) + 16.0,
        root,
        pitch < 12,
        tuple((_column(at, len(columns)), at) for at in range(every, len(columns) + 1, every)),
        tuple(pen.mark(node) for node in tree),
        tuple(_row(node, depth[node.key] - 1, node.key == problem.chosen) for node in tree),
        {fate.value: sum(n.fate is fate for n in tree) for fate in Fate},
        _spent(problem),
    )


def parents_of(keys: Sequence[Key]) -> dict[Key, Key]:
    """The nearest ancestor of each node that is a node itself; ``()`` is the root.

    A revision's key has a -1 behind its parent's, so an ancestor may be two places shorter.

    >>> parents_of([(0,), (0, -1, 2)])
    {(0,): (), (0, -1, 2): (0,)}
    """
    there = set(keys)
    found = {}
    for key in keys:
        above = (key[:length] for length in range(len(key) - 1, 0, -1))
        found[key] = next((prefix for prefix in above if prefix in there), ())
    return found


def depths(parents: Mapping[Key, Key]) -> dict[Key, int]:
    """How many nodes stand on the way to each node, itself included."""
    found: dict[Key, int] = {(): 0}
    for key in sorted(parents, key=len):
        found[key] = found[parents[key]] + 1
    return found


def place(
    columns: Sequence[Sequence[Key]], parents: Mapping[Key, Key], pitch: float
) -> dict[Key, tuple[float, float]]:
    """(x, y) of every node; the root stands at height 0, neighbours at least ``pitch`` apart.

    Within a column the heights are those nearest to the wish (around the parent) in the sense of
    least squares that keep order and distance: an isotonic regression.
    """
    heights: dict[Key, float] = {(): 0.0}
    places: dict[Key, tuple[float, float]] = {}
    for number, column in enumerate(columns, 1):
        order = sorted(column, key=lambda key: (heights[parents[key]], key))
        families: dict[Key, list[Key]] = {}
        for key in order:
            families.setdefault(parents[key], []).append(key)
        wish = [
            heights[above] + (at - (len(family) - 1) / 2) * pitch
            for above, family in families.items()
            for at in range(len(family))
        ]
        level = isotonic([want - at * pitch for at, want in enumerate(wish)])
        for at, key in enumerate(order):
            heights[key] = level[at] + at * pitch
            places[key] = (_column(number, len(columns)), heights[key])
    return places


def isotonic(wish: Sequence[float]) -> list[float]:
    """The non-decreasing numbers nearest to the given ones in least squares (pool adjacent).

    >>> isotonic([3.0, 1.0, 5.0])
    [2.0, 2.0, 5.0]
    """
    pools: list[tuple[float, int]] = []
    for value in wish:
        total, count = value, 1
        while pools and pools[-1][0] / pools[-1][1] > total / count:
            before, size = pools.pop()
            total, count = total + before, count + size
        pools.append((total, count))
    return [total / count for total, count in pools for _ in range(count)]


@dataclass(frozen=True, slots=True)
class _Pen:
    """Draws nodes of one tree."""

    problem: ProblemResult
    ends: Mapping[Key, Sample]
    pitch: float
    gap: float
    low: float
    high: float
    parents: Mapping[Key, Key]
    places: Mapping[Key, tuple[float, float]]
    root: tuple[float, float]
    extended: frozenset[Key]

    def mark(self, node: TreeNode) -> Mark:
        x, y = self.places[node.key]
        chosen = node.key == self.problem.chosen
        way = self.problem.chosen is not None and self.problem.chosen[: len(node.key)] == node.key
        radius = min(max(min(self.pitch, self.gap) * 0.3, 2.6), 6.5)
        from_x, from_y = self.places.get(self.parents[node.key], self.root)
        bend, end = f"{(from_x + x) / 2:.1f}", f"{x:.1f} {y:.1f}"
        above = node.key in self.extended and self.pitch >= 18
        note, right = self._note(node, self.gap if above else math.inf)
        beside = x + radius + (8 if chosen else 3.5)
        return Mark(
            round(x, 1),
            round(y, 1),
            round(radius * (0.72 if node.fate is Fate.PRUNED else 1.0), 1),
            node.fate.value,
            tone(node.score, self.low, self.high),
            way,
            chosen,
            f"M{from_x:.1f} {from_y:.1f}C{bend} {from_y:.1f} {bend} {y:.1f} {end}",
            round(1.0 + min(math.log2(max(node.visits, 1)) * 0.3, 2.0), 2),
            note,
            round(x if above else beside, 1),
            round(y - radius - (7.5 if chosen else 3.5) if above else y + 3.2, 1),
            above,
            right,
            self._title(node, chosen),
        )

    def _note(self, node: TreeNode, room: float) -> tuple[str, bool | None]:
        """What stands beside a node, if there is room: an end's answer, else the score."""
        end, note, right = self.ends.get(node.key), "", None
        if end is not None and self.pitch >= 8:
            note, right = cut(end.answer or "no answer", ANSWER), end.correct
        elif end is None and self.pitch >= 20 and node.score is not None:
            note = f"{node.score:.2f}"
        verdict = 2 * LETTER * (right is not None)
        if len(note) * LETTER + verdict <= room:
            return note, right
        return "", right if verdict <= room else None

    def _title(self, node: TreeNode, chosen: bool) -> str:
        parts = [node.fate.value, f"score {_score(node.score)}", f"visits {node.visits}"]
        if chosen:
            parts.insert(0, "selected")
        return f"{' · '.join(parts)}\n{cut(node.text, TITLE)}"


def _spent(problem: ProblemResult) -> tuple[tuple[str, int, int, int], ...]:
    """The problem's ledger by purpose: calls, new prompt tokens, generated tokens."""
    sums: dict[str, tuple[int, int, int]] = {}
    for row in problem.spent:
        calls, prompt, generated = sums.get(row.purpose, (0, 0, 0))
        new = row.usage.prompt - row.usage.cached
        sums[row.purpose] = (
            calls + row.completions,
            prompt + new,
            generated + row.usage.generated,
        )
    return tuple((purpose, *numbers) for purpose, numbers in sums.items())


def tone(score: float | None, low: float, high: float) -> int:
    """The colour of a score, 0..8 from ``low`` to ``high``; -1 without one."""
    if score is None or not math.isfinite(score):
        return -1
    return min(int((score - low) / (high - low) * TONES), TONES - 1) if high > low else 0


def cut(text: str, limit: int) -> str:
    """A text of at most so many characters, and a sign where it went on."""
    return text if len(text) <= limit else f"{text[:limit]}…"


def _row(node: TreeNode, depth: int, chosen: bool) -> Row:
    text = cut(node.text.strip("\n"), TEXT)
    return Row(depth, node.fate.value, _score(node.score), node.visits, chosen, text)


def _score(score: float | None) -> str:
    return "–" if score is None else f"{score:.3g}"


def _column(number: int, columns: int) -> float:
    """Where a depth stands: columns share the width, and few of them do not spread all over."""
    return LEFT + number * min((WIDTH - LEFT - RIGHT) / max(columns, 1), 190.0)
