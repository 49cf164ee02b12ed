"""The study's recipe: its configs name what its claims need, and its page says what was found."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from tests.report.rows import bits, row
from tests.runs.world import Steps, engine, small

from mull.catalog import load_strategy, model_card
from mull.catalog.models import model_folder
from mull.engines.torch.load import revision
from mull.report.cells import CellRow, load, packed, rows_of, save
from mull.runs import load_config, make_config, prepare, run
from mull.runs.cells import cells_of
from mull.strategies.needs import POLICY, needs_of
from mull.strategies.revise import Mixed, Revise

RECIPES = Path(__file__).parents[2] / "recipes"
CONFIGS = sorted((RECIPES / "study").glob("*.toml"))
MODELS = {"policy": "torch:words-s@a1", "prm": "torch:words-s-prm@v1/last"}


@pytest.fixture(scope="module")
def recipe() -> Iterator[dict[str, ModuleType]]:
    """The recipe's files as modules; scripts import each other by name from their own folder."""
    found: dict[str, ModuleType] = {}
    names = ("study_rules", "study_chains", "study_claims", "study_judges", "study", "study_shards")
    for name in names:
        spec = importlib.util.spec_from_file_location(name, RECIPES / f"{name}.py")
        assert spec is not None and spec.loader is not None
        found[name] = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found[name])
    yield found
    for name in found:
        del sys.modules[name]


def planned(path: Path) -> Iterator[CellRow]:
    """A row for each cell that a config would run."""
    config = load_config(path)
    strategies = {spec: load_strategy(spec) for spec in config.strategies}
    for at, cell in enumerate(cells_of(config, strategies)):
        if cell.budget is None:  # one answer whatever the samples: it makes no row
            assert cell.strategy == "greedy"
            continue
        assert cell.budget.samples is not None
        n, strategy = cell.budget.samples, strategies[cell.strategy]
        chained = isinstance(strategy, Mixed | Revise)
        turns = tuple(packed(bits(t, 0.4)) for t in range(n)) if chained else ()
        yield row(
            cell.strategy, n, bits(at, 0.3 + 0.004 * n), task=config.task, policy=config.model,
            models=MODELS if config.model == "words-s" else {"policy": config.model},
            policy_flops=1e6 * n, verifier_flops=1e5 * n, turns=turns, winner_score=0.5 + n / 1e3,
        )  # fmt: skip


def everything() -> list[CellRow]:
    rows = [each for path in CONFIGS for each in planned(path) if each.task == "words"]
    return list({each.key: each for each in rows}.values())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_valid_and_its_strategies_take_its_budgets(path: Path) -> None:
    prepare(load_config(path).model_copy(update={"problems": 1}))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_shard_of_another_seed_says_that_its_verifiers_are_the_firsts(
    path: Path, recipe: dict[str, ModuleType]
) -> None:
    fields = tomllib.loads(path.read_text(encoding="utf-8"))
    shard = recipe["study_shards"].shard
    assert shard(fields, 400, 0) == {**fields, "skip": 400}
    config = make_config(shard(fields, 200, 1))
    assert (config.skip, config.model) == (200, fields["model"] + "-seed1")
    strategies = [load_strategy(spec) for spec in config.strategies]
    needs = [needs_of(strategy) for strategy in strategies]
    judges = {name for each in needs for name in each.verifiers}
    foreign = {name for name, spec in config.verifiers.items() if "any_policy=true" in spec}
    built_in = ("checker", "likelihood", "mean-logprob")  # these fit any policy
    assert foreign == {name for name in judges if not name.startswith(built_in)}
    roles = {name for each in needs for name in each.engines} - {POLICY}
    assert config.engines == {
        role: {"model": f"{fields['model']}-{role}", "any_policy": True} for role in roles
    }


def test_the_configs_together_leave_no_claim_without_its_cells(
    recipe: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    study, claims = recipe["study"], recipe["study_claims"]
    # The rows are of no real weights; the card of the shipped judge stands for theirs.
    card = model_card("words-s-prm")
    monkeypatch.setattr(recipe["study_rules"], "card_of", lambda who: card)
    lines = claims.claims_table(study.families(everything()))
    assert [line for line in lines if "not run" in line] == []
    numbers = {claim.id for claim in claims.CLAIMS}
    wanted = [6, 7, *range(9, 21), 22, 23, 24, 25, 28]
    assert {f"C{number}" for number in wanted} | {"control"} == numbers


def test_a_claim_without_its_cells_says_so(recipe: dict[str, ModuleType]) -> None:
    claims = recipe["study_claims"]
    lines = claims.claims_table({"words-s": [row("vote", 4)]})
    said = [line for line in lines[2:] if "not run" not in line]
    assert len(lines) == 2 + len(claims.CLAIMS)
    assert [line.split("|")[1].strip() for line in said] == ["C6"]


def test_verdicts_follow_the_rows(recipe: dict[str, ModuleType]) -> None:
    rules = recipe["study_rules"]
    better = row("beam", 16, [i % 10 < 8 for i in range(40)])
    worse = row("weighted-vote", 16, [i % 10 < 3 for i in range(40)])
    for rows, said in (([better, worse], "reproduced"), ([worse], None)):
        found = rules.beats("beam", "weighted-vote", 16)({"words-s": rows})
        assert [each.verdict for each in found] == ([said] if said else [])
    (lost,) = rules.beats("weighted-vote", "beam", 16)({"words-s": [better, worse]})
    assert (lost.verdict, lost.shown[:5]) == ("contradicted", "-50.0")


def test_policies_whose_errors_are_never_equal_are_compared_where_they_are_nearest(
    recipe: dict[str, ModuleType],
) -> None:
    def sizes(policy: str, first: int, cost: float) -> list[CellRow]:
        return [
            row("vote", n, [i < first + at for i in range(40)], policy=policy,
                models={"policy": policy}, policy_flops=cost * n)
            for at, n in enumerate((1, 4, 16))
        ]  # fmt: skip

    small, large = sizes("words-s", 10, 1e6), sizes("words-l", 30, 4e6)
    (found,) = recipe["study_rules"].cheaper("vote")({"words-s": small, "words-l": large})
    assert (found.verdict, found.where) == ("contradicted", "words-l, N = 1 against 16")
    (other,) = recipe["study_rules"].cheaper("vote")({"words-l": large, "words-s": small})
    assert other.verdict == "reproduced"
    near = sizes("words-l", 13, 4e6)
    (unsure,) = recipe["study_rules"].cheaper("vote")({"words-s": small, "words-l": near})
    assert (unsure.verdict, unsure.shown[:3]) == ("not detected", "2.5")
    # One set of problems says nothing of another.
    easy = [replace(each, digest="d1", right=packed([True] * 40)) for each in small]
    assert recipe["study_rules"].cheaper("vote")(
        {"words-s": [*small, *easy], "words-l": large}
    ) == [found]
    costly = sizes("words-l", 30, 1e9)
    (open_,) = recipe["study_rules"].cheaper("vote")({"words-s": small, "words-l": costly})
    assert open_.verdict == "not detected"


def test_of_several_policies_the_signs_are_counted(recipe: dict[str, ModuleType]) -> None:
    rows = [
        row(strategy, 16, [i < right for i in range(40)], policy=policy)
        for strategy, counts in (("beam", (30, 10, 25)), ("vote", (20, 12, 20)))
        for policy, right in zip(("s", "s-seed1", "s-seed2"), counts, strict=True)
    ]
    beats = recipe["study_rules"].beats("beam", "vote", 16)
    (found,) = beats({"s": rows})
    assert "]; 2 of 3 policies; s 25.0 [" in found.shown
    assert found.verdict == "mixed over policies"
    # What its own policy does not show is said, and what it shows on its other problems counts.
    own = [row(s, 16, [i < 20 for i in range(40)], policy="s") for s in ("beam", "vote")]
    (carried,) = beats({"s": [*own, *(each for each in rows if each.policy == "s-seed2")]})
    assert carried.shown.startswith("6.2 [")
    others = [each for each in rows if each.policy == "s-seed2"]
    slight = [row("beam", 16, [i < 21 for i in range(40)], policy="s"), own[1]]
    (carried,) = beats({"s": [*slight, *others]})
    assert carried.verdict == "reproduced, not for s alone"
    more = [
        row(s, 16, [i < right for i in range(40)], policy="s", digest="d1")
        for s, right in (("beam", 40), ("vote", 20))
    ]
    (found,) = beats({"s": [*slight, *others, *more]})
    assert found.verdict == "reproduced"
    assert found.shown.startswith(carried.shown.partition(";")[0])


def test_flips_count_right_attempts_that_the_next_turn_loses(
    recipe: dict[str, ModuleType],
) -> None:
    chains = recipe["study_chains"]
    turns = tuple(packed([i < right for i in range(40)]) for right in (20, 15, 20))
    rows = [row(chains.CHAIN, 3, bits(1, 0.9), turns=turns)]
    (found,) = chains.flips({"words-s": rows})
    assert found.shown.startswith(f"{100 * 5 / 35:.1f} [")
    (best,) = chains.never_last({"words-s": rows})
    gap = 100 * (rows[0].correct.mean() - 0.5)
    assert best.shown.startswith(f"{gap:.1f} [")


def test_seeds_of_training_are_one_family_and_older_verifiers_are_left_out(
    recipe: dict[str, ModuleType],
) -> None:
    study = recipe["study"]
    rows = [row("vote", 4, policy=p) for p in ("words-s", "words-s-seed1", "words-m")]
    assert {name: len(own) for name, own in study.families(rows).items()} == {
        "words-s": 2,
        "words-m": 1,
    }
    old = {**MODELS, "prm": "torch:words-s-prm@v0/last"}
    beams = [row("beam", n, models=MODELS) for n in (4, 16)]
    page = "\n".join(study.tables([*beams, row("beam", 1, models=old)]))
    assert "Left out: 1 cells of other weights" in page
    assert "@v1/last" in page
    assert "@v0/last" not in page


def test_claims_are_also_decided_by_ordinary_reward_models_in_place_of_the_policys_own(
    recipe: dict[str, ModuleType],
) -> None:
    other = {"policy": "torch:words-s@a1", "head": "torch:words-s-prm-head@h1/last"}
    read = {"policy": "torch:words-s@a1", "head-min": "torch:words-s-prm-head@h1/min"}
    rows = [
        row("vote", 4, models={"policy": "torch:words-s@a1"}),
        row("beam", 4, models=MODELS),
        row("beam(verifier=head)", 4, models=other),
        row("best-of-n(verifier=head)", 4, models=other),
        row("mixed(ratio=1, verifier=head)", 4, models=other),
        row("beam(keep=2, verifier=head)", 4, models=other),
        row("weighted-vote(verifier=head-min)", 4, models=read),
        row("weighted-vote(verifier=orm)", 4, models={"orm": "torch:words-s-orm@o1/last"}),
        row("best-of-n(verifier=orm-head)", 4, models={"orm-head": "torch:w@o0/last"}),
    ]
    placed = recipe["study_judges"].with_heads_alone(rows)
    assert [each.strategy for each in placed] == [
        "vote",
        "beam",
        "best-of-n(verifier=prm)",
        "mixed(ratio=1, verifier=prm)",
        "beam(keep=2)",
        "weighted-vote(verifier=prm-min)",
        "best-of-n(verifier=orm)",
    ]
    assert placed[1].models["prm"] == "torch:words-s-prm-head@h1/last"
    assert placed[5].models["prm-min"] == "torch:words-s-prm-head@h1/min"
    page = "\n".join(recipe["study"].tables(rows))
    assert page.count("| claim |") == 2


def test_a_run_on_the_simulator_becomes_rows_and_tables(
    tmp_path: Path, recipe: dict[str, ModuleType]
) -> None:
    config = small(
        strategies=["sample", "vote", "weighted-vote", "beam"],
        samples=[1, 4],
        verifiers={"prm": "simulated"},
    )
    run(config, tmp_path / "run", engine=engine(), task=Steps(), virtual=True)
    rows = list(rows_of(tmp_path / "run"))
    save(rows, tmp_path / "rows")
    assert sorted(load(tmp_path / "rows"), key=lambda r: r.key) == sorted(rows, key=lambda r: r.key)
    lines = recipe["study"].tables(rows)
    shown = {each.strategy: 100 * each.correct.mean() for each in rows if each.n == 4}
    for strategy, value in shown.items():
        (first, *_) = [line for line in lines if line.startswith(f"| `{strategy}` |")]
        assert f" {value:.1f} [" in first.split("|")[3]


def test_the_script_keeps_what_stands_above_the_tables(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    save([row("vote", n) for n in (1, 4)], tmp_path / "rows")
    page = tmp_path / "page.md"
    page.write_text("# Study\n\nMine.\n\n<!-- tables -->\n\nwhat was\n")
    command = [sys.executable, str(RECIPES / "study.py"), "tables", "--rows"]
    more = [str(tmp_path / "rows"), "--page", str(page), "--plot", str(tmp_path / "p.svg")]
    subprocess.run([*command, *more], check=True, capture_output=True)
    text = page.read_text()
    assert text.startswith("# Study\n\nMine.\n\n<!-- tables -->\n\n## words\n")
    assert "what was" not in text
    assert (tmp_path / "p.svg").stat().st_size > 1000


def test_a_card_of_other_weights_is_no_evidence(recipe: dict[str, ModuleType]) -> None:
    card_of = recipe["study_rules"].card_of
    own = revision(model_folder("words-s-prm"))
    assert card_of(f"torch:words-s-prm@{own}/last")["name"] == "words-s-prm"
    assert card_of("torch:words-s-prm@0000000000000000/last") == {}
    assert card_of("torch:nosuch@0000000000000000/last") == {}
