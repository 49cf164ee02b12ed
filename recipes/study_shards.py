"""The study's shards: a config on the problems behind the first, and on other seeds of its policy.

    python recipes/study_shards.py recipes/study/words.toml --skip 200 400 600     # hours
    python recipes/study_shards.py recipes/study/words.toml --policy-seed 1        # words-s-seed1

Each shard is a run of its own under ``--out``, resumed where it stopped; when it is finished its
rows are saved, so that the study grows over as many sittings as it takes.
"""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path
from typing import Any

import torch
from study import ROWS

from mull.catalog import load_strategy
from mull.catalog.verifiers import BUILTIN
from mull.report.cells import rows_of, save
from mull.runs import make_config, run
from mull.strategies.needs import POLICY, needs_of


def shard(fields: dict[str, Any], skip: int, policy_seed: int) -> dict[str, Any]:
    """The config's fields for the problems behind the first ``skip`` and a seed of the policy.

    Verifiers and revision models were trained for the first seed's policy: for the others they are
    taken as they are, and the config says so.
    """
    made = {**fields, "skip": skip}
    if not policy_seed:
        return made
    base = str(fields["model"])
    needs = [needs_of(load_strategy(spec)) for spec in fields["strategies"]]
    asked = {name: name for need in needs for name in need.verifiers} | fields.get("verifiers", {})
    made["model"] = f"{base}-seed{policy_seed}"
    made["verifiers"] = {
        name: told
        for name, spec in asked.items()
        if (told := foreign(spec, base)) != name  # a built-in one needs no entry
    }
    made["engines"] = {
        role: {"model": f"{base}-{role}", "any_policy": True}
        for need in needs
        for role in need.engines
        if role != POLICY
    }
    return made


def foreign(spec: str, base: str) -> str:
    """A verifier's spec for a policy that it was not trained for; built-in ones fit any."""
    name, bracket, rest = spec.partition("(")
    if name in BUILTIN:
        return spec
    name = name if name.startswith(base) else f"{base}-{name}"
    return f"{name}({rest.rstrip(')') + ', ' if bracket else ''}any_policy=true)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--skip", type=int, nargs="+", default=[0])
    parser.add_argument("--policy-seed", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("build/study"))
    parser.add_argument("--into", type=Path, default=ROWS)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    fields = tomllib.loads(given.config.read_text(encoding="utf-8"))
    for skip in given.skip:
        for policy_seed in given.policy_seed:
            folder = given.out / f"{given.config.stem}-{policy_seed}-{skip}"
            run(make_config(shard(fields, skip, policy_seed)), folder)
            found = list(rows_of(folder))
            save(found, given.into)
            print(f"{folder}: {len(found)} cells", flush=True)


if __name__ == "__main__":
    main()
