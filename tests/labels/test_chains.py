"""Recorded chains come back attempt by attempt, each with what it had in context."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from mull.errors import InputError, UsageError
from mull.labels.chains import Turns, read_chains
from mull.labels.samples import Recorded, read_run
from mull.labels.steps import Labeller, branch_of, distinct
from mull.labels.train import train_verifier
from mull.runs import make_config, run
from mull.runs.records import Records
from mull.store.schema import FILE
from mull.tasks.words import WordsTask
from mull.training.reward import TrainReward

pytestmark = pytest.mark.timeout(90)
PROBLEMS, CHAINS, LENGTH, HISTORY = 12, 2, 4, 2


@pytest.fixture(scope="module")
def revised(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Chains of two lengths: the shorter ones begin the longer ones."""
    folder = tmp_path_factory.mktemp("chains")
    spec = f"revise(chains={CHAINS}, history={HISTORY}, select=majority)"
    config = make_config(
        {
            "name": "chains",
            "task": "words",
            "model": "words-s",
            "strategies": [spec],
            "split": "train",
            "problems": PROBLEMS,
            "samples": [4, CHAINS * LENGTH],
            "engine": {"dtype": "float32"},
        }
    )
    run(config, folder)
    return read_run(folder)


@pytest.fixture(scope="module")
def chains(revised: Recorded) -> list[tuple[Turns, ...]]:
    return read_chains(revised)


def test_a_problem_whose_record_is_damaged_is_left_out(
    revised: Recorded, chains: list[tuple[Turns, ...]], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(revised.directory, copy)
    connection = sqlite3.connect(copy / FILE)
    connection.execute("UPDATE problems SET payload = 'x' WHERE position = 3")
    connection.commit()
    connection.close()
    assert len(read_chains(replace(revised, directory=copy))) == len(chains) - 1


def test_every_answered_attempt_is_there_with_its_grade(
    revised: Recorded, chains: list[tuple[Turns, ...]]
) -> None:
    with Records(revised.directory) as records:
        cell = max(records.cells, key=lambda cell: cell.budget.samples if cell.budget else 0)
        results = list(records.results(cell))
    assert len(results) == len(chains) == PROBLEMS
    for result, group in zip(results, chains, strict=True):
        assert all(chain[0].problem.id == result.problem for chain in group)
        ours = {(sample.text, sample.correct) for chain in group for sample in chain}
        answered = [c for c in result.candidates if c.answer is not None]
        assert ours == {(c.text, c.correct) for c in answered}


def test_no_chain_begins_another(chains: list[tuple[Turns, ...]]) -> None:
    for group in chains:
        texts = [[sample.text for sample in chain] for chain in group]
        for at, chain in enumerate(texts):
            assert all(chain != other[: len(chain)] for other in texts[:at] + texts[at + 1 :])


def test_an_attempt_saw_the_last_ones_of_its_own_chain(chains: list[tuple[Turns, ...]]) -> None:
    longest = 0
    for group in chains:
        assert len(group) <= CHAINS
        for chain in group:
            longest = max(longest, len(chain))
            for at, sample in enumerate(chain):
                before = [s.text for s in chain[max(0, at - HISTORY) : at]]
                assert [attempt.text for attempt in sample.history] == before
                assert all(text in branch_of(sample).prompt.plain for text in before)
    assert longest == LENGTH


def test_attempts_have_the_tokens_that_were_made(chains: list[tuple[Turns, ...]]) -> None:
    """They are found in the store only under the very request that the search made."""
    samples = [sample for group in chains for chain in group for sample in chain]
    assert all(sample.ids for sample in samples)
    assert any(sample.history for sample in samples)


def test_an_attempt_is_labelled_behind_what_it_saw(chains: list[tuple[Turns, ...]]) -> None:
    """The prompt is the one that a verifier with history asks about."""
    samples = distinct(sample for group in chains for chain in group for sample in chain)
    labelled = asyncio.run(Labeller("outcome", WordsTask()).label(samples))
    for sample, each in zip(samples, labelled, strict=True):
        assert each.prompt == branch_of(sample).prompt.plain
        assert each.labels[-1] == float(sample.correct is True)
    assert len({each.prompt for each in labelled}) > len(chains)


def test_only_outcomes_are_learned_behind_others(revised: Recorded, tmp_path: Path) -> None:
    config = TrainReward(tokens=100)
    work = train_verifier(revised, config, tmp_path, tmp_path, labels="exact", history=True)
    with pytest.raises(UsageError, match="history: labels=exact"):
        asyncio.run(work)


def test_a_run_without_chains_is_refused(recorded: Recorded) -> None:
    with pytest.raises(InputError, match="holds no chains of revisions"):
        read_chains(recorded)
