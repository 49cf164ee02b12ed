"""Train the verifiers and revision models that ship with Mull, from a run of their policy.

    python recipes/train_shipped_verifiers.py words-s-prm words-s-orm words-s-reviser

Each model is made by what ``mull run`` and ``mull train`` do: samples of the policy on problems of
the train split (kept in ``build/samples/<policy>`` and shared by the policy's models), labels, and
training. A stopped recipe goes on where it was; a model that is there already is left alone.
"""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mull.catalog import load_engine
from mull.catalog.models import model_folder
from mull.labels.revisions import Pairing
from mull.labels.samples import Recorded, read_run
from mull.labels.steps import Kind
from mull.labels.train import train_reviser, train_verifier
from mull.runs import make_config, run
from mull.training.finetune import FineTune
from mull.training.loop import Progress
from mull.training.reward import TrainReward

SHIPPED = Path(__file__).parent.parent / "src" / "mull" / "models"
TASKS = {"words": 24_000, "countdown": 12_000}
"""Problems sampled of each task, four samples each."""
SAMPLES = 4


@dataclass(frozen=True)
class Plan:
    """One model: whose samples it learns from, what it starts from, how it is labelled."""

    policy: str
    base: str
    labels: Kind | Literal["revision"]
    tokens: int
    rollouts: int | None = None
    share: float | None = None
    keep: float = 0.25
    pairing: Pairing = "nearest"
    seed: int = 0
    batch_tokens: int = 4096
    matrix_rate: float | None = None
    rate: float | None = None
    checks: int = 6
    logprobs: bool = True

    @property
    def task(self) -> str:
        return self.policy.split("-")[0]


# What a judge had that reads the hidden state alone; the others have the small rates of a base.
HEAD: dict[str, Any] = {
    "batch_tokens": 2048,
    "matrix_rate": 1e-3,
    "rate": 5e-4,
    "checks": 20,
    "logprobs": False,
}
# A verifier reads better than the policy writes where it starts from a larger policy; its FLOPs
# are charged. Labels are the checker's; with "soft" a share of the samples is rolled out. The heads
# that read the hidden state alone are for comparison; of outcome models they do not ship.
PLANS = {
    "words-s-prm": Plan("words-s", "words-m", "exact", 4_000_000),
    "words-s-prm-head": Plan(
        "words-s",
        "words-m",
        "exact",
        12_000_000,
        **{**HEAD, "batch_tokens": 4096, "matrix_rate": 1.5e-3, "rate": 7e-4},
    ),
    "words-s-prm-soft": Plan("words-s", "words-m", "soft", 3_000_000, rollouts=4, share=0.15),
    "words-s-orm": Plan("words-s", "words-m", "outcome", 4_000_000),
    "words-s-orm-head": Plan("words-s", "words-m", "outcome", 6_000_000, **HEAD),
    "words-s-reviser": Plan("words-s", "words-s", "revision", 6_000_000),
    "words-s-reviser-random": Plan("words-s", "words-s", "revision", 6_000_000, pairing="random"),
    "countdown-s-prm": Plan("countdown-s", "countdown-m", "exact", 6_000_000, checks=20),
    "countdown-s-prm-head": Plan("countdown-s", "countdown-m", "exact", 6_000_000, **HEAD),
    "countdown-s-orm": Plan("countdown-s", "countdown-m", "outcome", 4_000_000),
    "countdown-s-orm-head": Plan("countdown-s", "countdown-m", "outcome", 6_000_000, **HEAD),
    "countdown-s-reviser": Plan("countdown-s", "countdown-s", "revision", 6_000_000),
    "countdown-s-reviser-random": Plan(
        "countdown-s", "countdown-s", "revision", 6_000_000, pairing="random"
    ),
}


def samples_of(policy: str, task: str, cache: Path, slots: int) -> Recorded:
    """The policy's samples on the train split; a run, resumed if it was stopped."""
    config = make_config(
        {
            "name": f"{policy}-train",
            "task": task,
            "model": policy,
            "strategies": ["sample"],
            "split": "train",
            "problems": TASKS[task],
            "samples": SAMPLES,
            "seeds": [1],
            "engine": {"slots": slots},
        }
    )
    folder = cache / policy
    run(config, folder)
    return read_run(folder)


def train(name: str, out: Path, cache: Path, threads: int, slots: int) -> None:
    """Train one model."""
    plan = PLANS[name]
    recorded = samples_of(plan.policy, plan.task, cache, slots)
    base, folder = model_folder(plan.base), out / name

    def show(progress: Progress) -> None:
        share = progress.tokens / plan.tokens
        if progress.step % 500 == 0:
            print(f"{name} {share:4.0%} loss {progress.loss:.4f}", flush=True)

    if plan.labels == "revision":
        tune = FineTune(
            base,
            tokens=plan.tokens,
            seed=plan.seed,
            threads=threads,
        )
        how: dict[str, Any] = {"keep": plan.keep, "pairing": plan.pairing}
        print(train_reviser(recorded, tune, folder, **how, on_progress=show))
        return
    config = TrainReward(
        base=base,
        tokens=plan.tokens,
        seed=plan.seed,
        batch_tokens=plan.batch_tokens,
        matrix_rate=plan.matrix_rate,
        rate=plan.rate,
        precision="bfloat16",
        checks=plan.checks,
        patience=6,
        logprobs=plan.logprobs,
        threads=threads,
    )
    kind: Kind = plan.labels

    async def work() -> None:
        engine = load_engine(plan.policy, slots=slots) if kind == "soft" else None
        try:
            trained = await train_verifier(
                recorded,
                config,
                folder,
                model_folder(plan.policy),
                labels=kind,
                rollouts=plan.rollouts,
                share=plan.share,
                engine=engine,
                on_progress=show,
            )
        finally:
            if engine is not None:
                await engine.aclose()
        print(trained)

    asyncio.run(work())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="+", choices=list(PLANS), help="models to train")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="folder of the models")
    parser.add_argument("--cache", type=Path, default=Path("build/samples"))
    parser.add_argument("--threads", type=int, default=1, help="torch threads a training")
    parser.add_argument("--slots", type=int, default=256)
    given = parser.parse_args()
    for name in given.names:
        if (given.out / name / "model.safetensors").exists():
            print(f"{given.out / name} is there already")
            continue
        train(name, given.out, given.cache, given.threads, given.slots)


if __name__ == "__main__":
    main()
