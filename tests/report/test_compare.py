"""Comparisons of rows as laws: exact where measured, paired, order-free, one verifier at a time."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.report.rows import bits, row

from mull.metrics import Interval, wilson
from mull.report.cells import CellRow
from mull.report.compare import (
    Unit,
    accuracy,
    agree,
    agreeing,
    at_flops,
    balanced,
    column,
    contrast,
    difference,
    fifths,
    over_policies,
    paired,
    per_problem,
    slope,
)

PRM = {"policy": "torch:words-s@a1", "prm": "torch:words-s-prm@v1/last"}
NEWER = {**PRM, "prm": "torch:words-s-prm@v2/last"}


def curve(**more: object) -> list[CellRow]:
    return [row("beam", n, bits(n, 0.3 + 0.05 * n), **more) for n in (1, 4, 8)]


@pytest.mark.parametrize("n", [1, 4, 8])
def test_interpolation_is_exact_where_it_was_measured(n: int) -> None:
    anchor = row("vote", n)
    (found,) = at_flops(curve(), [anchor]).values()
    (own,) = [each for each in curve() if each.n == n]
    assert found.values.tolist() == own.correct.tolist()


@given(st.floats(1e6, 8e6))
def test_between_two_points_the_chance_lies_between_them(flops: float) -> None:
    (found,) = at_flops(curve(), [row("vote", 4, policy_flops=flops)]).values()
    low, _, high = curve() if flops > 4e6 else (*curve()[:2], curve()[1])
    middle = curve()[1]
    ends = (middle, high) if flops > 4e6 else (low, middle)
    together = np.array([each.correct for each in ends])
    assert (found.values >= together.min(axis=0)).all()
    assert (found.values <= together.max(axis=0)).all()


def test_halfway_in_the_logarithm_is_the_mean() -> None:
    ends = [row("beam", 1, bits(1, 0.3)), row("beam", 4, bits(2, 0.7))]
    (found,) = at_flops(ends, [row("vote", 2)]).values()
    assert np.allclose(found.values, (ends[0].correct + ends[1].correct) / 2)


@pytest.mark.parametrize("flops", [0.99e6, 8.01e6])
def test_outside_the_measured_range_nothing_is_said(flops: float) -> None:
    assert at_flops(curve(), [row("vote", 4, policy_flops=flops)]) == {}


@settings(max_examples=10)
@given(st.integers(0, 99))
def test_a_strategy_against_itself_is_zero(seed: int) -> None:
    rows = [row("vote", 4, bits(seed, 0.5), digest=digest) for digest in ("d0", "d1")]
    found = difference(rows, rows)
    assert found is not None
    assert (found.value, found.n) == (0.0, 80)
    assert found.high == -found.low == pytest.approx(wilson(0, 80).high)


@settings(max_examples=5)
@given(st.randoms(use_true_random=False))
def test_the_order_of_the_rows_changes_nothing(shuffle: random.Random) -> None:
    units = [(p, d) for p in ("words-s", "words-s-seed1") for d in ("d0", "d1")]
    a, b = (
        [row("vote", 4, bits(i + shift, 0.6), policy=p, digest=d) for i, (p, d) in enumerate(units)]
        for shift in (0, 50)
    )
    before = difference(a, b)
    shuffle.shuffle(a)
    shuffle.shuffle(b)
    assert difference(a, b) == before


def test_policies_on_the_same_problems_do_not_count_as_more_problems() -> None:
    one = [row("vote", 4, bits(1, 0.5))]
    three = [row("vote", 4, bits(1, 0.5), policy=f"p{i}") for i in range(3)]
    assert accuracy(three) == accuracy(one)


def test_problems_met_again_in_another_set_count_once() -> None:
    """Two sets of the same puzzles, solved alike, are no surer than one."""
    right, prompts = bits(3, 0.5), tuple(f"{at:016x}" for at in range(40))

    def rows(name: str, values: list[bool], *known: tuple[str, ...]) -> list[CellRow]:
        sets = zip(("d0", "d1"), known, strict=True)
        return [row(name, 4, values, digest=digest, prompts=p) for digest, p in sets]

    other, fresh = bits(4, 0.3), tuple(f"{at:016x}" for at in range(40, 80))
    one = accuracy(rows("vote", right, prompts, prompts))
    assert one.n == 80
    assert _width(one) == pytest.approx(_width(accuracy([row("vote", 4, right)])), rel=0.05)
    assert _width(accuracy(rows("vote", right, prompts, fresh))) < 0.8 * _width(one)
    again, apart = (
        difference(rows("vote", right, prompts, p), rows("beam", other, prompts, p))
        for p in (prompts, fresh)
    )
    assert again is not None and apart is not None
    assert again.value == apart.value
    assert _width(apart) < 0.8 * _width(again)


def _width(found: Interval) -> float:
    return found.high - found.low


def test_only_units_that_both_have_are_compared() -> None:
    a = [row("beam", 4, [True] * 40), row("beam", 4, [False] * 40, digest="d1")]
    b = [row("vote", 4, [False] * 40), row("vote", 4, [False] * 40, digest="d2")]
    found = difference(a, b)
    assert found is not None
    assert (found.value, found.n) == (1.0, 40)
    assert difference(a[:1], b[1:]) is None


def test_bins_are_fifths_of_the_levels_and_part_the_problems() -> None:
    easy = [level % 10 < 4 for level in range(40)]
    a, b = [row("beam", 4, easy)], [row("vote", 4, [False] * 40)]
    bins = [difference(a, b, [each]) for each in range(5)]
    assert [each.value for each in bins if each is not None] == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert sum(each.n for each in bins if each is not None) == 40
    assert fifths("easy,hard,None").tolist() == [1, 3, -1]


@pytest.mark.parametrize("count", range(3, 12))
def test_the_easiest_and_the_hardest_level_are_in_the_outer_fifths(count: int) -> None:
    found = fifths(",".join(str(1 + i) for i in range(count))).tolist()
    assert (found[0], found[-1], found) == (0, 4, sorted(found))


def test_costs_count_a_set_of_problems_once_as_accuracies_do() -> None:
    rows = [row(policy_flops=1.0), row(policy="words-s-seed1", policy_flops=3.0)]
    for policy, flops in (("words-s", 4.0), ("words-s-seed1", 6.0)):
        rows.append(row(policy=policy, digest="d1", right=bits(1, 0.5, 20), policy_flops=flops))
    assert per_problem(rows, lambda each: each.flops) == pytest.approx((2.0 * 40 + 5.0 * 20) / 60)


def test_policies_count_alike_however_many_problems_each_was_run_on() -> None:
    """More problems of one policy alone say nothing of all; alone it has all of its own."""
    shared = [row("vote", 4, [rate > at for at in range(40)], policy=policy)
              for policy, rate in (("s", 30), ("s-seed1", 10))]  # fmt: skip
    more = row("vote", 4, [True] * 40, policy="s", digest="d1", policy_flops=9e9)
    assert accuracy([*shared, more]) == accuracy(shared)
    assert accuracy([*shared, more]).value == 0.5
    assert accuracy([shared[0], more]).value == 0.875
    cost = per_problem(shared, lambda each: each.flops)
    assert per_problem([*shared, more], lambda each: each.flops) == cost
    assert over_policies([*shared, more]).keys() == over_policies(shared).keys()


@given(st.sets(st.tuples(st.sampled_from("abc"), st.integers(0, 1), st.sampled_from("xyz"))))
def test_balanced_units_are_of_sets_that_the_same_policies_were_run_on(units: set[Unit]) -> None:
    kept = balanced(units)
    policies = {digest: {p for p, _, d in units if d == digest} for _, _, digest in units}
    assert len({frozenset(policies[digest]) for _, _, digest in kept}) == min(1, len(units))
    assert all(len(policies[unit[2]]) == max(map(len, policies.values())) for unit in kept)
    assert balanced(kept) == kept


def test_an_interaction_is_the_difference_of_two_differences() -> None:
    cells = [column([row("vote", n, bits(n, 0.5))]) for n in range(1, 5)]
    found = contrast(list(zip((1, -1, -1, 1), cells, strict=True)))
    means = paired(cells).values.mean(axis=0)
    assert found is not None
    assert found.value == pytest.approx(means[0] - means[1] - means[2] + means[3])


def test_a_line_over_the_doublings_has_its_slope() -> None:
    rising = {2**k: column([row("vote", 2**k, [i < 8 * k for i in range(40)])]) for k in range(5)}
    found = slope(rising)
    assert found is not None
    assert found.value == pytest.approx(0.2)
    assert slope({1: rising[1]}) is None


def test_two_rows_of_one_unit_are_refused() -> None:
    with pytest.raises(ValueError, match="two rows"):
        column([row("vote", 4), row("beam", 4)])


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (PRM, True),
        ({"policy": PRM["policy"]}, True),
        ({**PRM, "prm-min": "torch:words-s-prm@v1/min"}, True),
        (NEWER, False),
        ({"policy": PRM["policy"], "prm-min": "torch:words-s-prm@v2/min"}, False),
        ({**PRM, "policy": "torch:words-s@b7"}, False),
        ({"policy": PRM["policy"], "checker": "checker:checker:words@0.1/0/0/0"}, True),
        ({}, False),
    ],
)
def test_weights_must_be_the_same_wherever_both_used_them(
    other: dict[str, str], same: bool
) -> None:
    assert agree(PRM, other) is agree(other, PRM) is same


def test_an_exact_checker_and_a_degraded_one_may_be_compared() -> None:
    exact, degraded = "checker:checker:words@0.0/0.0/0.0/0", "checker:checker:words@0.1/0.1/0.0/0"
    assert agree({"checker": exact}, {"rung": degraded})
    assert not agree({"checker": exact}, {"checker": degraded})


def test_a_newer_verifiers_rows_are_never_paired_with_an_older_ones() -> None:
    old, new = [row("beam", 4, models=PRM)], [row("weighted-vote", 4, models=NEWER)]
    assert difference(old, new) is None
    assert at_flops(curve(models=PRM), new) == {}
    unknown = [row("weighted-vote", 4, models={})]
    assert difference(old, unknown) is None
    assert difference([row("vote", 4, models={})], unknown) is not None


def test_one_table_holds_the_rows_of_one_verifier_a_policy() -> None:
    plain = [row("vote", n) for n in (1, 4)]
    old = [row("beam", 1, models=PRM)]
    new = [row("beam", n, models=NEWER) for n in (4, 16)]
    sister = [row("beam", 4, policy="words-s-seed1", models=PRM)]
    kept, left = agreeing([*old, *plain, *new, *sister])
    assert kept == [*plain, *new, *sister]
    assert left == old


def test_a_turn_that_a_chain_does_not_have_is_left_out() -> None:
    chains = [row("revise", 4, turns=("ff" * 5, "00" * 5)), row("revise", 4, digest="d1")]
    assert [len(column(chains, turn)) for turn in (1, 2, 3)] == [1, 1, 0]
    (last,) = column(chains, 2).values()
    assert math.isclose(last.values.sum(), 0.0)
