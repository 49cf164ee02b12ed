"""Names of models: what each form means, and what is said about those that mean nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mull.catalog import load_engine, load_policy, model_card, models, shipped_models
from mull.engines.simulated import SimulatedEngine
from mull.errors import ModelLoadError, SpecError


def test_the_simulator_by_name_and_with_options() -> None:
    engine = load_engine("simulated:echo", slots=7, token_ms=2.0)
    assert (engine.info.kind, engine.info.slots) == ("simulated", 7)
    assert load_engine(engine) is engine


def test_a_price_may_be_text_as_in_a_spec() -> None:
    assert load_engine("simulated", price="1,0.1,2").info.price == (1.0, 0.1, 2.0)
    for bad in ("1,2", "1", "dear", "1,,2"):
        with pytest.raises(SpecError, match=r"engine\.price = .* expected a list of 3 numbers"):
            load_engine("simulated", price=bad)


def test_a_model_that_scores_does_not_write(tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text('{"kind": "prm"}')
    with pytest.raises(SpecError, match="is a prm: it scores what others write"):
        load_policy(str(tmp_path))
    assert load_policy("simulated:echo").info.kind == "simulated"


def test_an_unknown_option_lists_the_valid_ones() -> None:
    with pytest.raises(SpecError, match=r"unknown option of the engine .* 'slot'; valid: .*slots"):
        load_engine("simulated", slot=7)


@pytest.mark.parametrize(
    "name",
    ["", " ", "no-such-model", "no/such/model", "./none", "x" * 5000, "a\0b", "simulated:x", "~"],
)
def test_an_unknown_name_is_a_spec_error_that_says_what_a_model_is(name: str) -> None:
    with pytest.raises(SpecError, match=r"expected|A model is|known are") as caught:
        load_engine(name)
    assert len(str(caught.value)) < 1500


def test_a_name_close_to_a_shipped_one_is_guessed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "words-s").mkdir()
    (tmp_path / "words-s/card.json").write_text('{"task": "words"}')
    monkeypatch.setattr(models, "MODELS", tmp_path)
    shipped_models.cache_clear()
    try:
        assert shipped_models() == {"words-s": {"task": "words"}}
        assert model_card("words-s") == {"task": "words"}
        with pytest.raises(SpecError, match=r"valid: words-s\. Did you mean 'words-s'"):
            load_engine("word-s")
    finally:
        shipped_models.cache_clear()


def test_a_directory_may_have_a_card(tmp_path: Path) -> None:
    assert model_card(str(tmp_path)) is None
    assert model_card("no-such-thing") is None
    assert model_card("x" * 5000) is None
    (tmp_path / "card.json").write_text(json.dumps({"task": "text"}))
    assert model_card(str(tmp_path)) == {"task": "text"}


@pytest.mark.parametrize("text", ["{", "[1]", "nul", "[" * 100_000, "\udcff"])
def test_a_broken_card_is_a_model_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "card.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ModelLoadError, match="is no model card"):
        model_card(str(tmp_path))


def test_engines_of_ones_own_pass_through() -> None:
    assert isinstance(load_engine("simulated"), SimulatedEngine)
