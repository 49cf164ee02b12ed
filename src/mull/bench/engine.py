"""The torch engine against its peers, side by side in one run: ratios, medians and ranges.

Every repeat runs every contender on the same fresh prompts, one after the other, so that a machine
that is busy for a while slows all of them; the ratio is taken within a repeat. Each contender runs
in both dtypes and counts with its better one. Models are random weights of a real shape.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from mull.bench.driver import Spread
from mull.budget import Ledger, Meter, Purpose
from mull.engines.torch import Dtype, load_torch_engine
from mull.errors import EngineError
from mull.types import Prompt, Request, Until

DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16")
VLLM_PYTHON = "MULL_VLLM_PYTHON"
"""Names an interpreter that has vLLM, so that its CPU build may live in its own environment."""

Ids = tuple[int, ...]
Contender = Callable[[Sequence[Ids], int], None]


@dataclass(frozen=True, slots=True)
class Shape:
    """A Qwen2-shaped decoder with tied embeddings."""

    name: str
    vocab: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int


SMALL = Shape("6M", 8192, 256, 704, 6, 4, 2)
HALF_BILLION = Shape("0.5B", 151936, 896, 4864, 24, 14, 2)


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens a second of each contender in its better dtype, and the engine's ratio to each."""

    shape: str
    n: int
    prompt: int
    new: int
    rates: dict[str, Spread]
    dtypes: dict[str, str]
    ratios: dict[str, Spread]
    targets: dict[str, float]


@dataclass(frozen=True, slots=True)
class Batched:
    """One row of the batching table; ``seconds`` is for the whole job, ``measured`` samples ran."""

    mode: str
    dtype: str
    rate: Spread
    seconds: float
    measured: int


def write_model(path: Path, shape: Shape, seed: int = 0) -> Path:
    """A random bfloat16 checkpoint of a shape, with a tokenizer that has one word a token."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    config = transformers.Qwen2Config(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        dtype="bfloat16",
    )
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(str(path))
    words = {f"w{number}": number for number in range(shape.vocab)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))  # noqa: S106 (no password)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(str(path))
    return path


def prompts(shape: Shape, count: int, size: int, seed: int) -> list[Ids]:
    """Distinct random prompts: no contender can reuse a prefix."""
    rng = random.Random(seed)
    return [tuple(rng.randrange(shape.vocab) for _ in range(size)) for _ in range(count)]


def engine_speed(
    shape: Shape = SMALL,
    *,
    n: int = 64,
    prompt: int = 64,
    new: int = 128,
    repeats: int = 5,
    dtypes: Sequence[Dtype] = DTYPES,
    targets: dict[str, float] | None = None,
) -> Speed:
    """Throughput of the engine, of ``transformers.generate``, of a bare decode loop, and of vLLM
    where it is installed, on ``n`` distinct prompts of ``prompt`` tokens with ``new`` new tokens.
    """
    seconds: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path = write_model(Path(folder) / "model", shape)
        contenders: dict[tuple[str, str], Contender] = {}
        for dtype in dtypes:
            contenders["mull", dtype] = stack.enter_context(_mull(path, dtype, n))
            contenders["bare loop", dtype] = bare_loop(path, dtype)
            contenders["transformers", dtype] = _transformers(path, dtype)
        if vllm_python() is not None:
            contenders["vllm", "bfloat16"] = stack.enter_context(_vllm(path, n))
        for repeat in range(-1, repeats):
            batch = prompts(shape, n, prompt, repeat)
            for key, contender in contenders.items():
                # One short run apart first: memory, packing and compilation are not the subject.
                began = time.perf_counter()
                contender(batch, new if repeat >= 0 else min(new, 8))
                if repeat >= 0:
                    seconds.setdefault(key, []).append(time.perf_counter() - began)
    return _compare(shape, n, prompt, new, seconds, targets or {})


def _compare(
    shape: Shape,
    n: int,
    prompt: int,
    new: int,
    seconds: dict[tuple[str, str], list[float]],
    targets: dict[str, float],
) -> Speed:
    best: dict[str, str] = {}
    for name in dict.fromkeys(name for name, _ in seconds):
        own = {dtype: values for (who, dtype), values in seconds.items() if who == name}
        best[name] = min(own, key=lambda dtype, own=own: Spread.of(own[dtype]).median)  # type: ignore[misc]
    rates = {
        name: Spread.of([n * new / value for value in seconds[name, dtype]])
        for name, dtype in best.items()
    }
    mine = seconds["mull", best["mull"]]
    ratios = {
        name: Spread.of([b / a for a, b in zip(mine, seconds[name, dtype], strict=True)])
        for name, dtype in best.items()
        if name != "mull"
    }
    return Speed(shape.name, n, prompt, new, rates, best, ratios, targets)


def batching(
    shape: Shape = SMALL,
    *,
    problems: int = 100,
    samples: int = 8,
    prompt: int = 64,
    new: int = 128,
    repeats: int = 5,
    slots: int = 256,
    share: float = 1.0,
) -> list[Batched]:
    """The write-up's table: one prompt at a time, per problem, all together.

    The slow modes take a ``share`` of the problems, at least one, and are scaled up; ``measured``
    says how many samples were.
    """
    found: list[Batched] = []
    few = max(1, round(problems * share))
    modes = {"one prompt at a time": few, "per problem": few, "all together": problems}
    with tempfile.TemporaryDirectory() as folder:
        path = write_model(Path(folder) / "model", shape)
        for mode, count in modes.items():
            rows = []
            for dtype in DTYPES:
                engine = load_torch_engine(path, dtype=dtype, slots=slots)
                rates = []
                for repeat in range(repeats):
                    batch = prompts(shape, count, prompt, repeat)
                    began = time.perf_counter()
                    asyncio.run(_in_mode(engine, mode, batch, samples, new))
                    rates.append(count * samples * new / (time.perf_counter() - began))
                asyncio.run(engine.aclose())
                rate = Spread.of(rates)
                whole = problems * samples * new / rate.median
                rows.append(Batched(mode, dtype, rate, whole, count * samples))
            found.append(max(rows, key=lambda row: row.rate.median))
    return found


async def _in_mode(engine: Any, mode: str, batch: Sequence[Ids], samples: int, new: int) -> None:
    if mode == "all together":
        await asyncio.gather(*(_generate(engine, ids, samples, new, 0) for ids in batch))
        return
    for ids in batch:
        if mode == "per problem":
            await _generate(engine, ids, samples, new, 0)
        else:
            for number in range(samples):
                await _generate(engine, ids, 1, new, number)


async def _generate(engine: Any, ids: Ids, n: int, new: int, first: int) -> None:
    meter = Meter(Ledger(), Purpose.POLICY, engine.info)
    request = Request(Prompt(token_ids=ids), Until(max_tokens=new), n=n, first=first)
    made = 0
    async for completion in engine.generate(request, meter):
        made += completion.usage.generated
    if made != n * new:
        raise EngineError(f"{made} tokens were made where {n * new} were asked for")


# --- contenders ----------------------------------------------------------------------------------


@contextmanager
def _mull(path: Path, dtype: Dtype, n: int) -> Iterator[Contender]:
    engine = load_torch_engine(path, dtype=dtype, slots=n)

    async def all_of_them(batch: Sequence[Ids], new: int) -> None:
        await asyncio.gather(
            *(_generate(engine, ids, 1, new, number) for number, ids in enumerate(batch))
        )

    yield lambda batch, new: asyncio.run(all_of_them(batch, new))
    asyncio.run(engine.aclose())


def bare_loop(path: Path, dtype: str) -> Contender:
    """The same forward pass in the barest loop: one fixed batch, argmax, no stops, no scheduler."""
    import torch

    from mull.engines.torch.config import read_config
    from mull.engines.torch.load import load_model
    from mull.engines.torch.rows import Rows

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_model(path, read_config(path), getattr(torch, dtype), device)

    @torch.inference_mode()
    def loop(batch: Sequence[Ids], new: int) -> None:
        ids = torch.tensor(batch, device=device)
        count, size = ids.shape
        rows = Rows(model, cap=1)
        rows.reserve(count, size, 0)
        places = torch.arange(size, device=device).expand(count, size)
        hidden = model.forward(ids, places, rows.keys, rows.values, size)[:, -1]
        for step in range(new):
            tokens = model.logits(hidden).argmax(-1)
            place = torch.full((count, 1), size + step, device=device)
            rows.reserve(count, size + step + 1, count)
            args = (tokens[:, None], place, rows.keys, rows.values, rows.length)
            hidden = model.forward(*args)[:, 0]

    return loop


def _transformers(path: Path, dtype: str) -> Contender:
    import torch
    import transformers

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = transformers.AutoModelForCausalLM.from_pretrained(
        str(path), dtype=getattr(torch, dtype)
    )
    model = model.to(device).eval()

    @torch.inference_mode()
    def loop(batch: Sequence[Ids], new: int) -> None:
        ids = torch.tensor(batch, device=device)
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            top_k=0,
            max_new_tokens=new,
            min_new_tokens=new,
        )
        if out.shape[1] != ids.shape[1] + new:
            raise EngineError("transformers made another number of tokens than was asked for")

    return loop


def vllm_python() -> str | None:
    """An interpreter that has vLLM: ``MULL_VLLM_PYTHON``, or this one; ``None`` if neither."""
    named = os.environ.get(VLLM_PYTHON)
    if named:
        return named
    return sys.executable if importlib.util.find_spec("vllm") else None


VLLM_CHILD = """
import json, os, sys
out = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # vLLM prints to stdout; the protocol has its own copy
from vllm import LLM, SamplingParams
path, rows = sys.argv[1], int(sys.argv[2])
llm = LLM(model=path, dtype="bfloat16", max_num_seqs=rows, max_model_len=1024,
          skip_tokenizer_init=True, enable_prefix_caching=False)
print("ready", file=out, flush=True)
for line in sys.stdin:
    job = json.loads(line)
    how = SamplingParams(temperature=1.0, max_tokens=job["new"], ignore_eos=True, detokenize=False)
    prompts = [{"prompt_token_ids": ids} for ids in job["batch"]]
    made = sum(len(o.outputs[0].token_ids) for o in llm.generate(prompts, how, use_tqdm=False))
    print(made, file=out, flush=True)
"""


@contextmanager
def _vllm(path: Path, n: int) -> Iterator[Contender]:
    """vLLM in a process of its own, kept warm: its start-up is not measured."""
    environment = {
        "VLLM_CPU_KVCACHE_SPACE": "4",
        "HF_HUB_OFFLINE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        **os.environ,
    }
    python = vllm_python() or sys.executable
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(  # noqa: S603 (the interpreter that the user named)
            [python, "-c", VLLM_CHILD, str(path), str(n)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
        ) as child,
    ):

        def read() -> str:
            line = child.stdout.readline().strip() if child.stdout else ""
            if not line:
                log.seek(0)
                last = log.read().strip().splitlines()[-1:]
                raise EngineError(f"vLLM ended without an answer: {' '.join(last)}")
            return line

        def run(batch: Sequence[Ids], new: int) -> None:
            if child.stdin is not None:
                child.stdin.write(json.dumps({"batch": batch, "new": new}) + "\n")
                child.stdin.flush()
            if (made := int(read())) != len(batch) * new:
                raise EngineError(f"vLLM made {made} tokens, not {len(batch) * new}")

        try:
            read()
            yield run
        finally:
            child.kill()


# --- tables --------------------------------------------------------------------------------------

PLAN: tuple[tuple[Shape, int, tuple[Dtype, ...], dict[str, float]], ...] = (
    (SMALL, 64, DTYPES, {"transformers": 2.0, "vllm": 1.5, "bare loop": 0.8}),
    (SMALL, 256, DTYPES, {"transformers": 3.0, "vllm": 1.3, "bare loop": 0.8}),
    (HALF_BILLION, 16, ("bfloat16",), {"transformers": 0.95, "vllm": 0.95}),
)
"""The measurements of ``mull bench engine``: shape, rows, dtypes, ratio to reach by peer."""


def measure(repeats: int = 5, new: int = 128, large: bool = True) -> list[Speed]:
    """Every comparison of ``PLAN``; ``large=False`` leaves out the 0.5B shape."""
    return [
        engine_speed(shape, n=n, new=new, repeats=repeats, dtypes=dtypes, targets=targets)
        for shape, n, dtypes, targets in PLAN
        if large or shape is SMALL
    ]


def speed_table(found: Sequence[Speed]) -> Table:
    """Rates and ratios for a reader."""
    table = Table(
        "shape", "rows", "contender", "dtype", "tokens/s", "ours / it", "to reach", box=None
    )
    for speed in found:
        for name, rate in speed.rates.items():
            ratio, target = speed.ratios.get(name), speed.targets.get(name)
            table.add_row(
                f"{speed.shape}, {speed.prompt} + {speed.new} tokens",
                str(speed.n),
                name,
                speed.dtypes[name],
                str(rate),
                "" if ratio is None else str(ratio),
                "" if target is None else f"at least {target:g}",
            )
    return table


def batching_table(found: Sequence[Batched]) -> Table:
    """The batching table for a reader; the last column is against one prompt at a time."""
    table = Table("mode", "dtype", "tokens/s", "seconds in all", "samples measured", "×", box=None)
    for row in found:
        gain = found[0].seconds / row.seconds
        table.add_row(
            row.mode,
            row.dtype,
            str(row.rate),
            f"{row.seconds:.1f}",
            str(row.measured),
            f"{gain:.1f}",
        )
    return table
