"""A chat model with a real tokenizer learns puzzles, in training and at test time, and submits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from transformers import Qwen2Config, Qwen2ForCausalLM  # noqa: E402

from mull.api import solve_many  # noqa: E402
from mull.tasks.arc import submission  # noqa: E402
from mull.tasks.arc.augment import Recipe  # noqa: E402
from mull.tasks.arc.data import n_minus_1  # noqa: E402
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

NEW = (
    # One output whatever the input: a rule that a few steps teach from any demonstration.
    Puzzle(
        "same",
        tuple(Pair(((i, i + 1),), ((7, 8), (8, 7))) for i in (1, 3, 5)),
        (Pair(((5, 2),), ((7, 8), (8, 7))),),
    ),
)
WAY = writing(FORMAT)
TASK = ArcTask(format=FORMAT, geometry=False, colours=False, order=False, max_tokens=64)
LONGEST = 512
SHAPE = LoraShape(rank=8, alpha=16.0, dropout=0.0, targets=("all-linear",))
QUICK = TrainLora(Path(), steps=40, batch=2, micro=2, max_length=LONGEST, rate=1e-2, every=40)


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


@pytest.fixture(scope="module")
def base(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = shared_data / "tokenizers" / "qwen2"
    if not (tokenizer / "tokenizer.json").is_file():
        pytest.skip(f"no tokenizer in {tokenizer}")
    return qwen2_like(tmp_path_factory.mktemp("base"), tokenizer)


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was trained on the puzzles with their solutions."""
    folder = tmp_path_factory.mktemp("trained") / "adapter"
    encoder, held = Encoder.of(base), texts_of(PUZZLES, WAY)
    train_lora(
        replace(QUICK, base=base, shape=SHAPE),
        stream(PUZZLES, base),
        folder,
        validation=held,
        measure=ExactAnswers(base, tuple(held), encoder),
        encoder=encoder,
        task=f'arc(format="{FORMAT}")',
    )
    return folder


def stream(puzzles: Sequence[Puzzle], base: Path, swap: bool = False) -> ArcStream:
    encoder = Encoder.of(base)
    still = Recipe(geometry=False, colours=False, order=False, swap=swap, own=0.0)
    return ArcStream(
        tuple(puzzles), WAY, recipe=still, fits=lambda text: len(encoder(text)) <= LONGEST
    )


def losses(folder: Path) -> list[float]:
    log = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    return [line["loss"] for line in log if "loss" in line]


def submitted(
    puzzles: Sequence[Puzzle], model: Path, out: Path, task: ArcTask = TASK, **options: str
) -> float:
    """Infer under three views, vote, write the file, check it: its score."""
    problems = [problem for puzzle in puzzles for problem in task.problems_of(puzzle)]
    solved = solve_many(
        problems,
        str(model),
        task=task,
        strategy="airv(n=3, temperature=0.0)",
        engine_options={"device": "cpu", **options},
    )
    answers = {
        puzzle.id: ((from_text(solution.answer) if solution.answer else None,),)
        for puzzle, solution in zip(puzzles, solved, strict=True)
    }
    submission.write(str(out), answers, puzzles)
    assert not submission.check(str(out), puzzles).problems
    return submission.score(submission.read(str(out)), puzzles).fractional.value


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_puzzle_is_learned_and_submitted(base: Path, adapter: Path, tmp_path: Path) -> None:
    learned = losses(adapter)
    assert learned[0] > 4.0
    assert learned[-1] < 0.1
    record = json.loads((adapter / "trained.json").read_text())
    assert record["checks"][-1]["measures"]["exact"] == 1.0
    merge(base, adapter, tmp_path / "merged")
    assert submitted(PUZZLES, tmp_path / "merged", tmp_path / "submission.json") == 1.0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_adapter_goes_on_from_what_a_new_puzzle_demonstrates(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    """Test-time fine-tuning: demonstrations alone, each asked for in turn, solve what was not."""
    # Asked with as many demonstrations as a training text shows: so small a model counts places.
    prompt, opening = WAY.ask(replace(NEW[0], train=NEW[0].train[1:]))
    task = replace(TASK, characters=len(prompt.plain) + len(opening))
    assert submitted(NEW, base, tmp_path / "before.json", task, adapter=str(adapter)) == 0.0
    blind = [replace(p, test=tuple(Pair(pair.input) for pair in p.test)) for p in NEW]
    less = list(n_minus_1(blind))
    assert less == list(n_minus_1(NEW)), "test pairs are never seen"
    tuned = tmp_path / "tuned"
    train_lora(
        replace(QUICK, base=base, start=adapter),
        stream(less, base, swap=True),
        tuned,
        encoder=Encoder.of(base),
        task=f'arc(format="{FORMAT}")',
    )
    assert losses(tuned)[-1] < 0.1
    assert submitted(NEW, base, tmp_path / "after.json", task, adapter=str(tuned)) == 1.0
