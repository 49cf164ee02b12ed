"""The step model: solutions of L steps with seeded errors, the error model behind the laws.

A solution reads ``step 1: ok ....`` line by line and ends in ``answer 17``. What a step says is
what happened in it:

| word     | meaning                                                                       |
|----------|-------------------------------------------------------------------------------|
| ok       | the step is right                                                             |
| slip k   | a local error; the final answer will be gold + k (k = 1: the common one)      |
| lure k   | the same, but it looks right to the simulated verifier (deceptive error)      |
| off k    | a wrong approach, at step 1: a global error                                   |
| trap k   | ends the solution at once with a wrong answer that the verifier loves         |

The first error decides the answer, so a text says everything about itself: a branch may be
continued, revised, scored and verified from its text alone. The error model is the one that
reproduces the published curves of search against verifier quality (Snell et al. 2024; simulated
values in tests/engines/test_simulated_laws.py).
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from mull.engines.simulated.content import Piece, sampling
from mull.engines.simulated.problems import Facts, read_facts
from mull.engines.simulated.tables import IMPOSSIBLE, Table, pads
from mull.engines.simulated.text import encode, prompt_text
from mull.rng import derive
from mull.types import Request, Sampling

Event = tuple[str, int]
"""What a step says: its word and its k (0 for ok)."""

_LINE = re.compile(r"step (\d+): (ok|slip|lure|off|trap)(?: (\d+))? \.*(\n+)")
_ANSWER = re.compile(r"^answer:? (\d+)\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a text of the step model says about itself.

    ``events`` are its complete steps, ``rest`` what stands behind them, ``answer`` the final one.
    """

    events: tuple[Event, ...]
    rest: str
    answer: int | None

    @property
    def error(self) -> Event | None:
        """The first wrong step."""
        return next((event for event in self.events if event[0] != "ok"), None)

    @property
    def trapped(self) -> bool:
        """Whether a trap has ended the solution."""
        return any(word == "trap" for word, _ in self.events)


def read_solution(text: str, steps: int, separator: str = "\n") -> Reading:
    """Read a (partial) solution of ``steps`` steps; of several attempts, the last."""
    events: list[Event] = []
    end = 0
    for match in _LINE.finditer(text):
        number, word, k, line_end = match.groups()
        closing = "\n" if word == "trap" or int(number) >= steps else separator
        if not line_end.startswith(closing):
            break
        if number == "1":
            events.clear()
        events.append((word, int(k or 0)))
        end = match.start(4) + len(closing)
    rest = text[end:]
    answers = _ANSWER.findall(rest)
    return Reading(tuple(events), rest, int(answers[-1]) if answers else None)


@dataclass(frozen=True)
class StepModel:
    """Solutions with errors, drawn step by step.

    ``tokens``       lengths of a step, uniform from the range (never below its own words)
    ``distractor``   share of errors that lead to the one common wrong answer
    ``wrong``        number of other wrong answers, equally likely
    ``deceptive``    share of errors that the verifier cannot see (lures)
    ``exploit``      probability a step of a trap
    ``approach``     probability that a fresh attempt takes a right approach
    ``fix``          probability that a revision repairs a slip of the attempt before it
    ``switch``       probability that a revision leaves a wrong approach
    ``breaks``       probability that a revision breaks a right attempt, spread over its steps
    ``closing``      what stands before the final answer: ``answer `` or ``answer: ``, which tasks
                     for users' own prompts read
    ``separator``    what closes a step. With a newline the final answer is a step of its own;
                     with a blank line it belongs to the last step and depth is exactly L

    Step success, number of steps and gold answer come with the problem (``levels``). A revision
    is asked for by showing earlier attempts in the prompt; the last one counts. Temperature and
    filters act on what happens in a step; temperature 0 takes the likeliest event and the
    shortest step. Log-probabilities are exact at T = 1.
    """

    tokens: tuple[int, int] = (20, 60)
    distractor: float = 0.35
    wrong: int = 40
    deceptive: float = 0.0
    exploit: float = 0.0
    approach: float = 1.0
    fix: float = 0.3
    switch: float = 0.1
    breaks: float = 0.05
    closing: str = "answer "
    separator: str = "\n"

    def __post_init__(self) -> None:
        names = ("distractor", "deceptive", "exploit", "approach", "fix", "switch", "breaks")
        for name in names:
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"step model: {name} must lie in 0..1, not {getattr(self, name)}")
        if not 1 <= self.tokens[0] <= self.tokens[1]:
            raise ValueError(f"step model: tokens must be a range (low, high), not {self.tokens}")
        if self.closing not in ("answer ", "answer: "):
            raise ValueError(
                f"step model: closing must be 'answer ' or 'answer: ', not {self.closing!r}"
            )
        if self.wrong < 0 or self.separator.strip("\n") or not self.separator:
            raise ValueError("step model: wrong must be >= 0, separator one or more newlines")

    def write(self, request: Request, index: int) -> Iterator[Piece]:
        """The steps that are missing, one piece each, then the answer."""
        prompt = prompt_text(request.prompt)
        facts = read_facts(prompt)
        so_far = read_solution(request.assistant, facts.steps, self.separator)
        rng = random.Random(derive(request.seed, index))
        events, rest = list(so_far.events), so_far.rest
        while len(events) < facts.steps and not any(word == "trap" for word, _ in events):
            table = self._table(facts, prompt, events)
            line = self._line(table, facts, len(events) + 1, rest, sampling(request), rng)
            if line is None:
                yield ("" if rest.endswith("\n") else "\n"), None
                rest = ""
                continue
            piece, event = line
            yield piece
            events.append(event)
            rest = ""
        answer = f"{self.closing}{_answer(facts, events)}"
        if not answer.startswith(rest):
            yield "\n" + answer, None
        else:
            yield answer[len(rest) :], None

    def score(self, prompt: str, assistant: str) -> list[float]:
        """Exact log-probability of each byte; ``IMPOSSIBLE`` where the model cannot say it."""
        facts = read_facts(prompt)
        events: list[Event] = []
        scores: list[float] = []
        for match in _LINE.finditer(assistant):
            number, word, k, _ = match.groups()
            event = (word, int(k or 0))
            table = self._table(facts, prompt, events)
            if int(number) != len(events) + 1 or _word(event) not in table.logprobs:
                break
            scores += [IMPOSSIBLE] * (len(encode(assistant[: match.start()])) - len(scores))
            last = word == "trap" or len(events) + 1 == facts.steps
            end = "\n" if last else self.separator
            head, said = f"step {number}: ", _word(event)
            dots = match.group(0).count(".", len(head))
            pad = pads(len(head + said) + len(end), *self.tokens)
            scores += [0.0] * len(head) + list(table.logprobs[said])
            scores += pad.dots(0, dots) + [pad.end(dots)] + [0.0] * (len(end) - 1)
            events.append(event)
            if last:
                break
        closing = f"{self.closing}{_answer(facts, events)}"
        done = len(scores)
        tail = assistant.encode()[done:]
        complete = len(events) == facts.steps or ("trap" in (w for w, _ in events))
        fits = complete and closing.encode().startswith(tail)
        return scores + [0.0 if fits else IMPOSSIBLE] * len(tail)

    def end(self, prompt: str, assistant: str) -> float:
        """0 behind a whole solution, whose turn always ends there; else ``IMPOSSIBLE``."""
        facts = read_facts(prompt)
        reading = read_solution(assistant, facts.steps, self.separator)
        complete = len(reading.events) == facts.steps or reading.trapped
        whole = f"{self.closing}{_answer(facts, list(reading.events))}"
        return 0.0 if complete and reading.rest == whole else IMPOSSIBLE

    def value(self, prompt: str, assistant: str) -> float:
        """Probability that this text ends right: 0 after an error."""
        facts = read_facts(prompt)
        reading = read_solution(assistant, facts.steps, self.separator)
        if reading.error is not None:
            return 0.0
        if reading.answer is not None:
            return float(reading.answer == facts.gold)
        return float((facts.success * (1 - self.exploit)) ** (facts.steps - len(reading.events)))

    def _line(
        self, table: Table, facts: Facts, step: int, rest: str, how: Sampling, rng: random.Random
    ) -> tuple[Piece, Event] | None:
        """The rest of line ``step`` behind ``rest``; ``None`` where no line begins so."""
        head = f"step {step}: "
        begun = ""
        if len(rest) <= len(head):
            if not head.startswith(rest):
                return None
        elif rest.startswith(head):
            begun = rest[len(head) :]
        else:
            return None
        word = table.draw(how, rng, begun)
        if word is None:
            return None
        event = _event(word)
        end = "\n" if event[0] == "trap" or step == facts.steps else self.separator
        pad = pads(len(head + word) + len(end), *self.tokens)
        tail = begun[len(word) :]
        dots = tail.count(".")
        if tail.strip(".\n"):
            return None
        closing = tail[dots:]
        total = dots if closing else pad.draw(how, rng, dots)
        line = head + word + "." * total + end
        logprobs = [0.0] * len(head) + list(table.logprobs[word])
        logprobs += pad.dots(0, total) + [pad.end(total)] + [0.0] * (len(end) - 1)
        return (line[len(rest) :], logprobs[len(rest) :]), event

    def _table(self, facts: Facts, prompt: str, events: list[Event]) -> Table:
        """What can happen in the next step, given the attempt before and the steps so far."""
        step = len(events)
        before = _history(prompt, facts.steps, self.separator)
        previous: Event | None = None
        if before:
            was_off = before[0][0] == "off"
            if was_off and step == 0:
                previous = before[0]
            elif not was_off and step < len(before) and before[step][0] != "trap":
                previous = before[step]
        fresh_start = step == 0 and not before
        return _build(self, facts.success, facts.steps, fresh_start, previous)


@lru_cache(maxsize=1024)
def _history(prompt: str, steps: int, separator: str) -> tuple[Event, ...]:
    """The last earlier attempt that a prompt shows, as events."""
    return read_solution(prompt, steps, separator).events


@lru_cache(maxsize=4096)
def _build(
    model: StepModel, success: float, steps: int, fresh_start: bool, previous: Event | None
) -> Table:
    masses: dict[Event, float] = {}

    def add(event: Event, mass: float) -> None:
        if mass > 0:
            masses[event] = masses.get(event, 0.0) + mass

    def spread(word: str, mass: float) -> None:
        common = model.distractor if model.wrong else 1.0
        add((word, 1), mass * common)
        for k in range(2, model.wrong + 2):
            add((word, k), mass * (1 - common) / model.wrong)

    def step_of(right: float, mass: float) -> None:
        add(("ok", 0), mass * (1 - model.exploit) * right)
        wrong = mass * (1 - model.exploit) * (1 - right)
        spread("slip", wrong * (1 - model.deceptive))
        spread("lure", wrong * model.deceptive)
        spread("trap", mass * model.exploit)

    if previous is None:
        mass = model.approach if fresh_start else 1.0
        step_of(success, mass)
        spread("off", 1 - mass)
    elif previous[0] == "off":
        add(previous, 1 - model.switch)
        step_of(success, model.switch)
    elif previous[0] == "ok":
        step_of((1 - model.breaks) ** (1 / steps), 1.0)
    else:
        add(("ok", 0), model.fix)
        add(previous, 1 - model.fix)
    return Table(tuple((_word(event), mass) for event, mass in masses.items()))


def _word(event: Event) -> str:
    return "ok " if event[0] == "ok" else f"{event[0]} {event[1]} "


def _event(word: str) -> Event:
    name, _, k = word.strip().partition(" ")
    return name, int(k or 0)


def _answer(facts: Facts, events: list[Event]) -> int:
    return facts.gold + next((k for word, k in events if word != "ok"), 0)
