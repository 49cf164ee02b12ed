"""The engine benchmark runs every contender on the same work and reports ratios within a repeat."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from mull.bench import engine as bench  # noqa: E402
from mull.bench.engine import Shape, batching, engine_speed, prompts, write_model  # noqa: E402

TINY = Shape("tiny", 256, 32, 64, 2, 4, 2)
_ = transformers.Qwen2ForCausalLM  # loads slowly, here outside of any test's time limit


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "vllm_python", lambda: None)
    torch.set_num_threads(1)


@pytest.mark.timeout(30)
def test_every_contender_is_measured_in_its_better_dtype() -> None:
    found = engine_speed(TINY, n=3, prompt=8, new=6, repeats=2, targets={"transformers": 1.0})
    assert set(found.rates) == {"mull", "bare loop", "transformers"}
    assert set(found.ratios) == {"bare loop", "transformers"}
    assert set(found.dtypes.values()) <= {"float32", "bfloat16"}
    for name, ratio in found.ratios.items():
        assert 0 < ratio.least <= ratio.median <= ratio.most
        assert ratio.repeats == found.rates[name].repeats == 2
    assert bench.speed_table([found]).row_count == 3


@pytest.mark.timeout(30)
def test_the_batching_table_has_its_three_rows() -> None:
    rows = batching(TINY, problems=4, samples=2, prompt=8, new=4, repeats=1, share=0.5)
    assert [row.mode for row in rows] == ["one prompt at a time", "per problem", "all together"]
    assert [row.measured for row in rows] == [4, 4, 8]
    for row in rows:
        assert row.seconds == pytest.approx(4 * 2 * 4 / row.rate.median)
    assert bench.batching_table(rows).row_count == 3


def test_prompts_are_distinct_and_repeat_with_their_seed() -> None:
    assert len(set(prompts(TINY, 50, 16, 1))) == 50
    assert prompts(TINY, 5, 16, 1) == prompts(TINY, 5, 16, 1) != prompts(TINY, 5, 16, 2)


def test_the_small_shape_has_six_million_parameters(tmp_path: Path) -> None:
    path = write_model(tmp_path, bench.SMALL)
    from safetensors import safe_open

    with safe_open(str(path / "model.safetensors"), framework="pt") as file:
        total = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118
    assert 5.5e6 < total < 6.6e6
