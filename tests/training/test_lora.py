"""Laws of adapters in training: what is said is learned, exactly so after a kill, and merged."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file
from tests.training.tiny import SUMS, checkpoint
from transformers import AutoModelForCausalLM

import mull.engines.torch.open  # noqa: F401  (loads slowly, and here no test's time runs)
from mull.catalog import load_engine
from mull.catalog.models import model_folder
from mull.engines.torch.adapter import WEIGHTS
from mull.errors import ConfigError, InputError, ModelLoadError
from mull.training import lora
from mull.training.adapters import LoraShape, base_model, load_adapter, with_adapter
from mull.training.data import Example, Parts
from mull.training.dialogue import Encoded, Encoder
from mull.training.generation import ExactAnswers
from mull.training.lora import TrainLora, merge, train_lora
from mull.training.tune import mean_nll, nll

pytestmark = pytest.mark.timeout(30)  # peft walks every module, slowly on a busy machine
SHAPE = LoraShape(rank=4, alpha=8.0, dropout=0.0)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def encoder(base: Path) -> Encoder:
    return Encoder.of(base)


def config(base: Path, **changes: Any) -> TrainLora:
    settings = {"steps": 4, "batch": 4, "micro": 2, "rate": 1e-2, "shape": SHAPE, **changes}
    return TrainLora(base, **settings)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / WEIGHTS)


def adapted(base: Path, shape: LoraShape = SHAPE) -> Any:
    """The base with an adapter that changes something."""
    model = with_adapter(base_model(base, "float32", "cpu"), base, shape, seed=1)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0.0, 0.2, generator=generator)
    return model


# --- the loss ------------------------------------------------------------------------------------


def test_the_loss_is_that_of_what_is_said_and_of_nothing_else(base: Path, encoder: Encoder) -> None:
    model = adapted(base).eval()
    rows = [encoder(text) for text in SUMS[:7]]
    with torch.no_grad():
        total = float(nll(model, rows, "cpu"))
        wanted = 0.0
        for row in rows:
            logits = model(input_ids=torch.tensor([row.ids])).logits[0].log_softmax(-1)
            wanted -= sum(
                float(logits[at - 1, row.ids[at]]) for at in range(1, len(row)) if row.said[at]
            )
    assert total == pytest.approx(wanted, rel=1e-5)


def test_the_target_of_a_given_token_weighs_nothing(base: Path, encoder: Encoder) -> None:
    # The last given token is the target of nothing that counts, but the context of all that does;
    # so the model is made blind to it: only its weight as a target could change the loss.
    model = adapted(base).eval()
    row = encoder(Example("2 + 3 = ", "5"))
    given = len(row) - row.spoken
    other = (*row.ids[: given - 1], (row.ids[given - 1] + 1) % 20, *row.ids[given:])

    class Blind(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor, **options: Any) -> Any:
            seen = input_ids.clone()
            seen[:, given - 1] = row.ids[given - 1]
            return model(input_ids=seen, use_cache=False)

    loss = nll(Blind(), [row], "cpu")
    assert torch.equal(loss, nll(Blind(), [Encoded(other, row.said)], "cpu"))
    said = (*row.ids[:-1], (row.ids[-1] + 1) % 20)
    assert not torch.equal(loss, nll(Blind(), [Encoded(said, row.said)], "cpu"))


def test_padding_and_the_size_of_a_pass_change_no_loss(base: Path, encoder: Encoder) -> None:
    model = adapted(base).eval()
    rows = [encoder(t) for t in (*SUMS[::9], Example("1 + 1 + 1 + 1 + 1 + 1 = ", "6"))]
    with torch.no_grad():
        alone = sum(float(nll(model, [row], "cpu")) for row in rows)
        assert float(nll(model, rows, "cpu")) == pytest.approx(alone, rel=1e-5)
    spoken = sum(row.spoken for row in rows)
    assert mean_nll(model, rows, "cpu", narrow=False) == pytest.approx(alone / spoken, rel=1e-5)


def test_accumulation_gives_the_weights_of_one_pass(base: Path, tmp_path: Path) -> None:
    for micro in (1, 8):
        train_lora(config(base, batch=8, micro=micro, steps=2), SUMS, tmp_path / str(micro))
    one, all_at_once = weights(tmp_path / "1"), weights(tmp_path / "8")
    for name, weight in one.items():
        torch.testing.assert_close(weight, all_at_once[name], atol=1e-4, rtol=1e-3)


# --- training ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"shape": replace(SHAPE, dora=True)},
        {"shape": replace(SHAPE, rs_lora=False, targets=("all-linear",), dropout=0.1)},
        {"precision": "bfloat16"},
        {"recompute": True},
        {"schedule": "cyclic", "cycles": 2, "weight_decay": 0.01},
    ],
    ids=["rs-lora", "dora", "all-linear", "bfloat16", "recompute", "cyclic"],
)
def test_what_is_trained_on_is_learned(
    base: Path, encoder: Encoder, tmp_path: Path, changes: dict[str, Any]
) -> None:
    text = [Parts((("2 + 3 = ", False), ("7 9 1 4 4", True)))]
    before = mean_nll(base_model(base, "float32", "cpu"), [encoder(text[0])], "cpu", False)
    trained = train_lora(
        config(base, steps=25, batch=1, rate=2e-2, **changes), text, tmp_path, validation=text
    )
    assert trained.checks[-1]["validation"] < 0.7 * before
    assert trained.examples == 25
    assert json.loads((tmp_path / "trained.json").read_text())["loss"] == trained.loss


def test_recomputed_activations_give_the_same_weights(base: Path, tmp_path: Path) -> None:
    for recompute in (False, True):
        train_lora(config(base, recompute=recompute), SUMS, tmp_path / str(recompute))
    kept, again = weights(tmp_path / "False"), weights(tmp_path / "True")
    for name, weight in kept.items():
        torch.testing.assert_close(weight, again[name], atol=1e-5, rtol=1e-4)


class Killed(Exception):
    """The training died here."""


@pytest.mark.parametrize("log_every", [1, 4])
def test_a_killed_training_goes_on_to_the_same_weights(
    base: Path, tmp_path: Path, log_every: int
) -> None:
    long = config(base, steps=9, every=3, shape=replace(SHAPE, dropout=0.3), schedule="cosine")

    def run(folder: Path, die_at: int = 99) -> Any:
        def step(progress: Any) -> None:
            if progress.step == die_at:
                raise Killed

        return train_lora(
            long,
            SUMS,
            folder,
            validation=SUMS[:5],
            log_every=log_every,
            checkpoint_seconds=0.0,
            on_progress=step,
        )

    whole = run(tmp_path / "whole")
    for die_at in (3, 6) if log_every == 1 else (4, 8):
        with pytest.raises(Killed):
            run(tmp_path / "broken", die_at)
    again = run(tmp_path / "broken")
    one, two = weights(tmp_path / "whole"), weights(tmp_path / "broken")
    assert all(torch.equal(weight, two[name]) for name, weight in one.items())
    assert (again.examples, again.tokens) == (whole.examples, whole.tokens)

    def log(name: str) -> list[dict[str, Any]]:
        lines = (tmp_path / name / "train.jsonl").read_text().splitlines()
        return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]

    assert log("whole") == log("broken")
    assert not (tmp_path / "broken" / "checkpoint.safetensors").exists()


@pytest.mark.parametrize(
    "changes", [{"rate": 2e-2}, {"seed": 1}, {"steps": 7}, {"texts": SUMS[1:]}]
)
def test_a_checkpoint_of_another_training_is_refused(
    base: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    def run(texts: list[Example] = SUMS, **changes: Any) -> None:
        def die(progress: Any) -> None:
            if progress.step == 2:
                raise Killed

        settings = config(base, **changes)
        train_lora(settings, texts, tmp_path, log_every=1, checkpoint_seconds=0, on_progress=die)

    with pytest.raises(Killed):
        run()
    name = "stream" if "texts" in changes else next(iter(changes))
    with pytest.raises(ModelLoadError, match=f"another training: .*{name}"):
        run(**changes)


def test_a_training_that_diverges_is_an_error_and_no_adapter(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"diverged: .*: lower rate"):
        train_lora(config(base, rate=1e30), SUMS, tmp_path, validation=SUMS[:3], log_every=1)
    assert not list(tmp_path.iterdir())


def test_the_weights_of_an_adapter_come_last(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*given: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(lora, "save_adapter", killed)
        with pytest.raises(Killed):
            train_lora(config(base), SUMS, tmp_path, checkpoint_seconds=0)
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"card.json", "trained.json", "train.jsonl", "checkpoint.safetensors"}
    assert train_lora(config(base), SUMS, tmp_path).examples == 16
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_an_adapter_can_be_gone_on_from(base: Path, tmp_path: Path) -> None:
    train_lora(config(base), SUMS, tmp_path / "one")
    start = config(base, shape=None, start=tmp_path / "one", rate=1e-12, steps=1)
    train_lora(start, SUMS, tmp_path / "two")
    for name, weight in weights(tmp_path / "one").items():
        torch.testing.assert_close(weight, weights(tmp_path / "two")[name])


# --- what is too long ----------------------------------------------------------------------------


def test_too_long_texts_are_left_out_and_counted(base: Path, tmp_path: Path) -> None:
    long = Example(" + ".join("1" * 20) + " = ", "20")
    trained = train_lora(config(base, max_length=12), [*SUMS[:3], long], tmp_path)
    assert trained.examples - trained.too_long == 16
    assert trained.too_long >= 4


def test_nine_tenths_too_long_is_an_error(base: Path, tmp_path: Path) -> None:
    long = Example(" + ".join("1" * 20) + " = ", "20")
    with pytest.raises(InputError, match=r"of the last 1000 .* longer than 12 tokens"):
        train_lora(config(base, max_length=12, steps=500), [SUMS[0], *[long] * 19], tmp_path)
    with pytest.raises(InputError, match="every one of 1 validation texts is longer"):
        train_lora(config(base, max_length=12), SUMS, tmp_path, validation=[long])


# --- refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 0}, "steps must be positive"),
        ({"rate": -1.0}, "rate must be positive"),
        ({"precision": "float16"}, "bfloat16 or float32"),
        ({"schedule": "step"}, "unknown schedule"),
        ({"start": Path("x")}, "a shape or a start, not both"),
        ({"max_length": 1}, "at least 2"),
    ],
)
def test_a_config_that_cannot_be_is_refused(base: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config(base, **changes)


def test_a_shape_that_cannot_be_is_refused() -> None:
    for bad in ({"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}, {"targets": ()}):
        with pytest.raises(ConfigError):
            LoraShape(**bad)
    with pytest.raises(ConfigError, match="alone"):
        LoraShape(targets=("all-linear", "q_proj"))


def test_four_bits_need_a_gpu_and_targets_must_be_there(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="need a CUDA device, not cpu"):
        train_lora(config(base, four_bit=True), SUMS, tmp_path)
    with pytest.raises(ConfigError, match="linear layers are: down_proj, gate_proj"):
        train_lora(config(base, shape=LoraShape(targets=("w_qkv",))), SUMS, tmp_path)


# --- after training ------------------------------------------------------------------------------


@pytest.mark.parametrize("dora", [False, True])
def test_the_merged_model_has_the_logits_of_the_adapted_one(
    base: Path, tmp_path: Path, dora: bool
) -> None:
    whole = tmp_path / "base"
    whole.mkdir()
    for file in base.iterdir():
        (whole / file.name).write_bytes(file.read_bytes())
    raw = json.loads((whole / "config.json").read_text())
    # A base that says float32, so that nothing is rounded when it is written.
    (whole / "config.json").write_text(json.dumps({**raw, "torch_dtype": "float32"}))
    train_lora(config(whole, shape=replace(SHAPE, dora=dora)), SUMS, tmp_path / "adapter")
    merge(whole, tmp_path / "adapter", tmp_path / "merged")
    adapter = load_adapter(base_model(whole, "float32", "cpu"), tmp_path / "adapter", False).eval()
    ids = torch.randint(4, 20, (2, 11))
    merged = AutoModelForCausalLM.from_pretrained(str(tmp_path / "merged"))
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, adapter(ids).logits, atol=1e-4, rtol=0)
    assert isinstance(adapter, peft.PeftModel)
    engine = load_engine(str(tmp_path / "merged"), device="cpu")
    assert engine.info.dtype == "float32"
    assert engine.info.tokenizer == load_engine(str(base), device="cpu").info.tokenizer


def test_a_merged_model_keeps_the_task_that_the_adapter_or_else_the_base_was_trained_for(
    base: Path, tmp_path: Path
) -> None:
    whole = shutil.copytree(base, tmp_path / "base")
    (whole / "card.json").write_text('{"task": "words"}')
    for task, expected in (("", "words"), ("countdown", "countdown")):
        adapter = tmp_path / f"adapter-{task}"
        train_lora(config(whole, steps=1), SUMS, adapter, task=task)
        merge(whole, adapter, tmp_path / f"merged-{task}")
        card = json.loads((tmp_path / f"merged-{task}" / "card.json").read_text())
        assert card["task"] == expected


def test_a_grid_model_is_sent_to_the_command_that_adapts_it() -> None:
    with pytest.raises(ModelLoadError, match="mull arc adapt"):
        base_model(model_folder("arc-m"), "float32", "cpu")


def test_merging_onto_itself_and_without_an_adapter_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="another directory"):
        merge(base, tmp_path, base)
    with pytest.raises(ModelLoadError, match="no adapter directory"):
        merge(base, tmp_path, tmp_path / "merged")


def test_what_it_generates_is_measured_along_the_way(
    base: Path, encoder: Encoder, tmp_path: Path
) -> None:
    text = [Example("2 + 3 = ", "7")]
    settings = config(base, steps=40, batch=1, rate=3e-2, every=20, keep=True)
    trained = train_lora(
        settings,
        text,
        tmp_path,
        validation=text,
        measure=ExactAnswers(base, tuple(text), encoder),
    )
    assert [check["step"] for check in trained.checks] == [20, 40]
    assert trained.checks[-1]["measures"] == {"exact": 1.0, "tokens": 1.0}
    kept = weights(tmp_path / "step-40")
    assert all(torch.equal(w, kept[name]) for name, w in weights(tmp_path).items())
    card = json.loads((tmp_path / "card.json").read_text())
    assert (card["kind"], card["policy"]["model"]) == ("adapter", base.name)
    losses = [
        json.loads(x).get("loss") for x in (tmp_path / "train.jsonl").read_text().splitlines()
    ]
    assert np.isfinite([loss for loss in losses if loss is not None]).all()
