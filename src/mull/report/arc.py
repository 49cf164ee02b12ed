"""The records of a run on grid puzzles → predictions, attempts, and what they are worth.

A cell's problems are watched as the report reads them; what is kept of each is its predictions and
the two attempts that the cell's own selection gives. Computes no table and draws nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

from mull.budget import Budget
from mull.catalog import load_strategy, load_task
from mull.errors import MullError
from mull.grades import Unanswered
from mull.report import gallery
from mull.report.data import Cell, ProblemResult, Run, Sample
from mull.report.gallery import COPY, FAILED, NO_INVERSE, TOO_LONG
from mull.selection import Majority, Selector, exact
from mull.strategies.airv import Airv
from mull.strategies.base import Start, Strategy
from mull.strategies.number import FAR
from mull.strategies.single import Sample as Sampled
from mull.strategies.ttft import Ttft
from mull.strategies.vote import Vote
from mull.tasks.arc.grade import Graded, grade
from mull.tasks.arc.grids import Grid, Pair, Puzzle, from_text
from mull.tasks.arc.predictions import Attempts, Prediction
from mull.tasks.arc.submission import Submission, SubmissionScore, complete, score
from mull.tasks.arc.task import ArcTask, puzzle_of
from mull.tasks.base import SAME
from mull.types import Candidate, Problem, Prompt


@dataclass(frozen=True)
class SolvedCell:
    """What one cell made of the puzzles whose test pairs all have a result.

    ``answers`` has two attempts a test pair, ``first`` what the first prediction alone says.
    ``predictions`` hold failed ones too, ``too_long`` the problems that did not fit the model's
    context. ``spent`` are samples and computed tokens a test pair.
    """

    run: str
    strategy: str
    budget: str
    seed: int
    temperature: float | None
    puzzles: tuple[Puzzle, ...]
    predictions: tuple[Prediction, ...]
    answers: Submission
    first: Submission
    too_long: tuple[str, ...]
    spent: tuple[float, float]

    @property
    def config(self) -> Strategy | None:
        """The strategy; ``None`` where it cannot be loaded here."""
        return _strategy(self.strategy)

    @property
    def votes(self) -> bool:
        """Whether several samples, and no verifier, decide."""
        made = self.config
        made = made.inner if isinstance(made, Ttft) else made
        if isinstance(made, Airv):
            return made.rank == "vote" and made.threshold is None
        return isinstance(made, Vote | Sampled)

    @cached_property
    def scored(self) -> tuple[Puzzle, ...]:
        """The puzzles whose test outputs are all known."""
        return tuple(p for p in self.puzzles if all(pair.output for pair in p.test))

    @cached_property
    def score(self) -> SubmissionScore:
        """What the attempts are worth on the puzzles with known outputs, at least one."""
        return score(self.answers, self.scored)

    @cached_property
    def graded(self) -> Graded:
        """Predictions and attempts against the truth, on the puzzles with known outputs."""
        known = {puzzle.id for puzzle in self.scored}
        own = [each for each in self.predictions if each.puzzle in known]
        return grade(own, self.scored, rule=None, attempts_made=self.answers)


@dataclass(slots=True)
class Bench:
    """Watches the cells of runs go by and keeps what they made of grid puzzles.

    ``puzzles`` are those seen, for the page; ``picture`` says what to paint of the problem that
    went by last.
    """

    puzzles: list[dict[str, Any]] = field(default_factory=list)
    _kept: list[_Watched] = field(default_factory=list)
    _last: tuple[ProblemResult, _Watched] | None = None
    _numbers: dict[str, int] = field(default_factory=dict)

    def watched(self, run: Run, name: str = "") -> Run:
        """The run, its cells unchanged but watched; other runs than of grid puzzles as they are."""
        task = arc_task(run)
        if task is None:
            return run
        return replace(run, cells=tuple(self._cell(cell, task, name) for cell in run.cells))

    def solved(self) -> list[SolvedCell]:
        """What was seen, one a cell."""
        return [each.solved() for each in self._kept if each.problems]

    def picture(self, result: ProblemResult) -> dict[str, Any] | None:
        """What the page paints of a problem, if it is the one that went by last."""
        if self._last is None or self._last[0] is not result:
            return None
        puzzle, index = puzzle_of(problem_of(result))
        shown = gallery.puzzle(puzzle)
        number = self._numbers.setdefault(json.dumps(shown), len(self._numbers))
        if number == len(self.puzzles):
            self.puzzles.append(shown)
        kept = self._last[1]
        key = (puzzle.id, index)
        return gallery.picture(
            number,
            index,
            result,
            kept.attempts[key],
            kept.problems[key],
            puzzle.test[index].input,
            partial(explained, kept, result),
        )

    def _cell(self, cell: Cell, task: ArcTask, name: str) -> Cell:
        kept = _Watched(task, name, cell)
        self._kept.append(kept)
        return replace(cell, problems=self._watch(kept))

    def _watch(self, kept: _Watched) -> Iterator[ProblemResult]:
        for result in kept.cell.problems:
            kept.see(result)
            self._last = (result, kept)
            yield result


def solved_of(run: Run) -> list[SolvedCell]:
    """What each cell of a run made of the puzzles; reads every cell once."""
    bench = Bench()
    for cell in bench.watched(run).cells:
        for _ in cell.problems:
            pass
    return bench.solved()


def arc_task(run: Run) -> ArcTask | None:
    """The task of a run on grid puzzles, with its options; ``None`` for any other run."""
    if run.task.partition("(")[0] != ArcTask.name:
        return None
    try:
        task = load_task(run.task)
    except MullError:  # options that this version does not know
        return None
    return task if isinstance(task, ArcTask) else None


def failure_of(task: ArcTask, problem: Problem, sample: Sample) -> str:
    """The category of a response without an answer."""
    if sample.unanswered == Unanswered.FAILED.value:
        return FAILED
    if sample.unanswered == Unanswered.TRUNCATED.value:
        return Unanswered.TRUNCATED.value
    found = task.why(task.opening(problem) + sample.text)
    if found is not None:
        return found.value
    return COPY if sample.unanswered == Unanswered.NO_ANSWER.value else NO_INVERSE


def explained(kept: _Watched, result: ProblemResult, sample: Sample, failure: str) -> str:
    """What is wrong with one response: where its text cannot be read, or the recorded error."""
    if failure in (FAILED, TOO_LONG):
        return result.failure or ""
    return kept.task.reading(kept.task.opening(problem_of(result)) + sample.text).detail


def problem_of(result: ProblemResult) -> Problem:
    """A result's problem as the task knows it."""
    return Problem(result.id, Prompt.of(result.prompt), result.gold, result.meta)


@dataclass(slots=True)
class _Watched:
    task: ArcTask
    run: str
    cell: Cell
    puzzles: dict[str, Puzzle] = field(default_factory=dict)
    problems: dict[tuple[str, int], list[Prediction]] = field(default_factory=dict)
    attempts: dict[tuple[str, int], Attempts] = field(default_factory=dict)
    firsts: dict[tuple[str, int], Attempts] = field(default_factory=dict)
    too_long: list[str] = field(default_factory=list)
    samples: int = 0
    tokens: int = 0
    select: Selector | None = None

    def solved(self) -> SolvedCell:
        whole = [p for p in self.puzzles.values() if self._complete(p)]
        counts = [(p.id, i) for p in whole for i in range(len(p.test))]
        temperature = self.cell.parameters.get("temperature")
        done = max(len(self.problems), 1)
        return SolvedCell(
            self.run,
            self.cell.strategy,
            self.cell.budget,
            self.cell.seed,
            float(temperature) if temperature is not None else None,
            tuple(whole),
            tuple(each for key in counts for each in self.problems[key]),
            _submission(whole, self.attempts),
            _submission(whole, self.firsts),
            tuple(self.too_long),
            (self.samples / done, self.tokens / done),
        )

    def _complete(self, puzzle: Puzzle) -> bool:
        return all((puzzle.id, index) in self.problems for index in range(len(puzzle.test)))

    def see(self, result: ProblemResult) -> None:
        problem = problem_of(result)
        puzzle, index = puzzle_of(problem)
        known = self.puzzles.setdefault(puzzle.id, puzzle)
        gold = None if result.gold is None else from_text(result.gold)
        test = list(known.test)
        test[index] = Pair(test[index].input, gold)
        self.puzzles[puzzle.id] = replace(known, test=tuple(test))
        key = (puzzle.id, index)
        self.problems[key] = self._predictions(problem, result, key)
        self.attempts[key] = tuple(map(from_text, self._answers(problem, result)))
        first = next((s for s in result.samples if not any(s.key)), None)
        answer = first.answer if first is not None else None
        self.firsts[key] = () if answer is None else (from_text(answer),)
        if "ContextError" in result.failures and not any(s.answer for s in result.samples):
            self.too_long.append(result.id)
        self.samples += len(result.samples) if result.asked is None else result.asked
        paid = [result.paid] if result.paid is not None else [s.usage for s in result.samples]
        self.tokens += sum(usage.tokens for usage in paid)

    def _predictions(
        self, problem: Problem, result: ProblemResult, key: tuple[str, int]
    ) -> list[Prediction]:
        seen = viewed(_strategy(self.cell.strategy))
        most = max((s.key[0] for s in result.samples if s.key), default=-1)
        names = self.task.keys(problem, most + 1, seen.seed) if seen and most >= 0 else []
        lost = TOO_LONG if "ContextError" in result.failures else FAILED
        made = []
        for sample in result.samples:
            failure = None
            if sample.answer is None:
                failure = failure_of(self.task, problem, sample)
                failure = lost if failure == FAILED else failure
            number = sample.key[0] if sample.key else 0
            view = SAME if seen is None else names[number] if number >= 0 else ""
            made.append(_prediction(key, view, sample, failure))
        return made

    def _answers(self, problem: Problem, result: ProblemResult) -> list[str]:
        """The two best groups of the strategy's own selection; none where it had no answer."""
        if result.answer is None:
            return []
        if self.select is None:
            self.select = _selector(self.cell, self.task, problem)
        candidates = [
            Candidate(s.key, s.text, s.answer, scores=s.scores)
            for s in result.samples
            if s.answer is not None
        ]
        answers = [result.answer]
        # Behind those that the selection ranks stand those that it could not score, by votes.
        for select in (self.select, Majority()):
            answers += [group.answer for group in select(candidates, exact).ranking]
        return list(dict.fromkeys(answers))[:2]


def _prediction(key: tuple[str, int], view: str, sample: Sample, failure: str | None) -> Prediction:
    logprob, tokens = sample.scores.get("logprob"), sample.tokens
    mean = sample.scores.get("mean_logprob")
    if logprob is None or not math.isfinite(logprob):
        logprob = None
    elif mean is not None:  # that is what the selection compared; an endpoint may count otherwise
        tokens = max(1, round(logprob / mean) if mean else tokens)
    return Prediction(
        *key,
        view,
        None if sample.answer is None else from_text(sample.answer),
        failure,
        sample.text,
        logprob,
        tokens,
    )


def _submission(
    puzzles: Sequence[Puzzle], attempts: Mapping[tuple[str, int], Sequence[Grid | None]]
) -> Submission:
    made = {p.id: [tuple(attempts[p.id, i]) for i in range(len(p.test))] for p in puzzles}
    return complete(made, puzzles)


def _selector(cell: Cell, task: ArcTask, problem: Problem) -> Selector:
    """The selection of the cell's strategy; the majority where it has none of its own."""
    strategy = _strategy(cell.strategy)
    strategy = viewed(strategy) or strategy
    if strategy is None:
        return Majority()
    try:
        search: Any = strategy.start(Start(problem, task, _budget(cell.budget)))
    except MullError:
        return Majority()
    found = getattr(search, "select", None)
    return found if callable(found) else Majority()


def _budget(text: str) -> Budget | None:
    """The budget in a cell's words.

    >>> _budget("samples=8").samples
    8
    """
    limits: dict[str, Any] = {}
    for part in filter(None, text.split(", ")):
        unit, _, amount = part.partition("=")
        value = float(amount)
        limits[unit] = int(value) if value.is_integer() else value
    return Budget(**limits) if limits else None


def _strategy(spec: str) -> Strategy | None:
    try:
        return load_strategy(spec)
    except MullError:  # a user's file that is not here
        return None


def viewed(strategy: Strategy | None) -> Airv | None:
    """The search over views that a strategy is, or does under adapted weights."""
    if isinstance(strategy, Ttft):
        strategy = strategy.inner
    return strategy if isinstance(strategy, Airv) else None


def views_of(solved: SolvedCell) -> int | None:
    """How many views the cell's strategy takes of a problem; ``None`` where it takes none."""
    made = viewed(solved.config)
    if made is None:
        return None
    budget = _budget(solved.budget)
    n = made.n or (budget.samples if budget else None)
    return None if n is None or n >= FAR else n // made.width


def as_json(solved: Iterable[SolvedCell]) -> str:
    """Scores of cells as one JSON text."""
    rows = [
        {
            "strategy": each.strategy,
            "budget": each.budget,
            "temperature": each.temperature,
            "seed": each.seed,
            "puzzles": len(each.puzzles),
            "scored": len(each.scored),
            "too_long": list(each.too_long),
        }
        | (
            {
                "score": [each.score.fractional.value, each.score.fractional.low,
                          each.score.fractional.high],
                "all_pairs": [each.score.all_pairs.value, each.score.all_pairs.low,
                              each.score.all_pairs.high],
            }
            if each.scored
            else {}
        )
        for each in solved
    ]  # fmt: skip
    return json.dumps(rows)
