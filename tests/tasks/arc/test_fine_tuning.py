"""A chat model with a real tokenizer learns a puzzle: encode, train, merge, infer, vote, submit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from transformers import Qwen2Config, Qwen2ForCausalLM  # noqa: E402

from mull.api import solve_many  # noqa: E402
from mull.tasks.arc import submission  # noqa: E402
from mull.tasks.arc.augment import Recipe  # noqa: E402
from mull.tasks.arc.grids import Pair, Puzzle, from_text  # noqa: E402
from mull.tasks.arc.stream import ArcStream, texts_of  # noqa: E402
from mull.tasks.arc.task import ArcTask  # noqa: E402
from mull.tasks.arc.writing import writing  # noqa: E402
from mull.training.adapters import LoraShape  # noqa: E402
from mull.training.dialogue import Encoder  # noqa: E402
from mull.training.generation import ExactAnswers  # noqa: E402
from mull.training.lora import TrainLora, merge, train_lora  # noqa: E402

FORMAT = "GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))"
PUZZLES = (
    Puzzle("mirror", (Pair(((1, 2, 0),), ((0, 2, 1),)),), (Pair(((3, 0, 4),), ((4, 0, 3),)),)),
    Puzzle("next", (Pair(((1, 1), (2, 2)), ((2, 2), (3, 3))),), (Pair(((5, 5),), ((6, 6),)),)),
)


def qwen2_like(folder: Path, tokenizer: Path) -> Path:
    """Qwen2-0.5B's config and tokenizer at a hundredth of its width, its weights random."""
    config = Qwen2Config(
        vocab_size=151936,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        hidden_act="silu",
        max_position_embeddings=32768,
        max_window_layers=24,
        sliding_window=32768,
        use_sliding_window=False,
        rms_norm_eps=1e-6,
        rope_theta=1e6,
        tie_word_embeddings=True,
        attention_dropout=0.0,
        initializer_range=0.02,
        bos_token_id=151643,
        eos_token_id=151645,
    )
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        # Rows of a length that lets a logit stand out among 151,936 of them.
        model.model.embed_tokens.weight.normal_(0.0, 0.5)
        for name, weight in model.named_parameters():
            if name.endswith("proj.weight"):
                weight.normal_(0.0, 0.1)
    model.save_pretrained(str(folder))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tokenizer / name, folder / name)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_puzzle_is_learned_and_submitted(shared_data: Path, tmp_path: Path) -> None:
    tokenizer = shared_data / "tokenizers" / "qwen2"
    if not (tokenizer / "tokenizer.json").is_file():
        pytest.skip(f"no tokenizer in {tokenizer}")
    base = qwen2_like(tmp_path / "base", tokenizer)
    way, encoder = writing(FORMAT), Encoder.of(base)
    still = Recipe(geometry=False, colours=False, order=False, swap=False, own=0.0)
    stream = ArcStream(PUZZLES, way, recipe=still, fits=lambda text: len(encoder(text)) <= 512)
    held = texts_of(PUZZLES, way)
    trained = train_lora(
        TrainLora(
            base,
            steps=40,
            batch=2,
            micro=2,
            max_length=512,
            rate=1e-2,
            every=40,
            shape=LoraShape(rank=8, alpha=16.0, dropout=0.0, targets=("all-linear",)),
        ),
        stream,
        tmp_path / "adapter",
        validation=held,
        measure=ExactAnswers(base, tuple(held), encoder),
        encoder=encoder,
        task=f'arc(format="{FORMAT}")',
    )
    log = [json.loads(x) for x in (tmp_path / "adapter" / "train.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in log if "loss" in line]
    assert losses[0] > 4.0
    assert losses[-1] < 0.1
    assert trained.checks[-1]["measures"]["exact"] == 1.0

    merge(base, tmp_path / "adapter", tmp_path / "merged")
    task = ArcTask(format=FORMAT, geometry=False, colours=False, order=False, max_tokens=64)
    problems = [problem for puzzle in PUZZLES for problem in task.problems_of(puzzle)]
    solved = solve_many(
        problems,
        str(tmp_path / "merged"),
        task=task,
        strategy="airv(n=3, temperature=0.0)",
        engine_options={"device": "cpu"},
    )
    answers = {
        puzzle.id: ((from_text(solution.answer or ""),),)
        for puzzle, solution in zip(PUZZLES, solved, strict=True)
    }
    path = str(tmp_path / "submission.json")
    submission.write(path, answers, PUZZLES)
    assert not submission.check(path, PUZZLES).problems
    assert submission.score(submission.read(path), PUZZLES).fractional.value == 1.0
