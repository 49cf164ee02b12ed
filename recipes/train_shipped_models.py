"""Train the policies that ship with Mull, from nothing, on this machine.

    python recipes/train_shipped_models.py words-s words-m        # some
    python recipes/train_shipped_models.py --all --out DIR        # all, two hours on two cores

Each model is written to ``DIR/<name>`` (default ``src/mull/models``) in Hugging Face layout.  A
training that was stopped goes on where it was; a model that is there already is left alone.
``recipes/measure_shipped_models.py`` then measures them and writes their cards.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from mull.fileio import safe_name, write_atomic
from mull.tasks.countdown import CountdownTask
from mull.tasks.demonstrations import DemonstratedTask, demonstrations
from mull.tasks.words import WordsTask
from mull.training.data import Corpus, encode, load_corpus, save_corpus
from mull.training.loop import Progress
from mull.training.policy import TrainPolicy, train_policy
from mull.training.tokenizer import build_tokenizer

SHIPPED = Path(__file__).parent.parent / "src" / "mull" / "models"
VOCABULARY_EXAMPLES = 4000

# What demonstrations are drawn from; the first word of a plan.
TASKS: dict[str, WordsTask | CountdownTask] = {
    "words": WordsTask(),
    "words, 3 distractors": WordsTask(distractors=3),
    "countdown": CountdownTask(),
}
# The most that any model of the task sees; all of them see the same text, or the first part of it.
CORPUS_TOKENS = {"words": 8_000_000, "words, 3 distractors": 8_000_000, "countdown": 5_000_000}


@dataclass(frozen=True)
class Plan:
    """One model to train."""

    task: str
    size: str
    tokens: int
    seed: int = 0
    matrix_rate: float | None = None
    rate: float | None = None
    precision: str = "float32"


# Larger models see fewer tokens: they need fewer, and this is what two shared cores had time for.
# Rates differ because they were found to be too high for look-ups only after the first trainings.
PLANS = {
    "words-s": Plan("words, 3 distractors", "s", 8_000_000, 0, 4e-3, 2e-3),
    "words-s-seed1": Plan("words", "s", 8_000_000, 1, 4e-3, 2e-3),
    "words-s-seed2": Plan("words", "s", 8_000_000, 2, 4e-3, 2e-3),
    "words-m": Plan("words", "m", 5_000_000, 0, 2e-3, 1e-3),
    "countdown-s": Plan("countdown", "s", 5_000_000, 0, 4e-3, 2e-3),
    "countdown-s-seed1": Plan("countdown", "s", 5_000_000, 1, 4e-3, 2e-3),
    "countdown-s-seed2": Plan("countdown", "s", 5_000_000, 2, 4e-3, 2e-3),
    "countdown-m": Plan("countdown", "m", 3_000_000, 0, 3e-3, 1.5e-3),
    "words-l": Plan("words", "l", 6_000_000, 0, 1e-3, 5e-4, "bfloat16"),
    "countdown-l": Plan("countdown", "l", 4_000_000, 0, 1e-3, 5e-4, "bfloat16"),
}


def vocabulary(task: DemonstratedTask) -> list[str]:
    """Texts that hold every piece of the task's language."""
    first = islice(demonstrations(task), VOCABULARY_EXAMPLES)
    return [example.prompt + example.solution for example in first]


def corpus(name: str, cache: Path) -> Corpus:
    """The task's training text, from the cache if it is there."""
    path = cache / f"{safe_name(name)}.npz"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        tokenizer = build_tokenizer(vocabulary(TASKS[name]))
        save_corpus(encode(demonstrations(TASKS[name]), tokenizer, CORPUS_TOKENS[name]), path)
    return load_corpus(path)


def train(name: str, folder: Path, cache: Path, threads: int) -> None:
    """Train one model and leave ``trained.json`` beside its weights."""
    plan = PLANS[name]
    task = TASKS[plan.task]
    config = TrainPolicy(
        size=plan.size,
        tokens=plan.tokens,
        seed=plan.seed,
        matrix_rate=plan.matrix_rate,
        rate=plan.rate,
        precision=plan.precision,
        threads=threads,
    )

    def show(progress: Progress) -> None:
        share = progress.tokens / plan.tokens
        print(
            f"{name} {share:4.0%} loss {progress.loss:.4f} {progress.tokens_per_second:.0f} tok/s",
            flush=True,
        )

    trained = train_policy(
        config,
        demonstrations(task),
        vocabulary(task),
        folder,
        corpus=corpus(plan.task, cache).take(plan.tokens),
        on_progress=show,
    )
    record = {**trained.__dict__, "folder": name, "task": task.name, "data": asdict(task)}
    write_atomic(folder / "trained.json", json.dumps(record, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", choices=[*PLANS, []], help="models to train")
    parser.add_argument("--all", action="store_true", help="train every shipped model")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="folder of the models")
    parser.add_argument("--cache", type=Path, default=Path("build/corpora"))
    parser.add_argument("--threads", type=int, default=1, help="torch threads a training")
    arguments = parser.parse_args()
    names = list(PLANS) if arguments.all else arguments.names
    if not names:
        parser.error("name the models to train, or say --all")
    for name in names:
        folder = arguments.out / name
        if (folder / "model.safetensors").exists():
            print(f"{folder} is there already")
            continue
        train(name, folder, arguments.cache, arguments.threads)


if __name__ == "__main__":
    main()
