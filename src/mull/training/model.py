"""A lean Llama for training from scratch: same parameters, names and numbers as ``transformers``.

``transformers``' own modules spend most of a tiny model's step outside the matrix products; this
one has no cache, no mask and no options.  Its weights load in ``AutoModelForCausalLM`` and give
the same logits (tests/training/test_model.py).

It is a Llama whose attention has biases (``attention_bias`` in its config). A bias of query and key
under rotary positions is a preference for a distance, whatever the tokens; three heads of the first
layer are *initialised* to look one, two and three tokens back. A tiny model otherwise spends most
of its training on finding such heads, which every look-up ("which value stood after this noun?")
is built on.

Shapes: B rows, T tokens, D width, H heads of width K = D / H, V vocabulary.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, TypeVar, cast

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from torch import Tensor, nn

from mull.engines.torch.places import SIDE, Marks
from mull.errors import ConfigError, ModelLoadError
from mull.fileio import write_atomic
from mull.training.data import padded_length

_EPSILON: Final = 1e-6
_THETA: Final = 10_000.0
# Size of the initial position biases: the head then gives its distance about six tenths of its
# attention at first, sharp enough to be used and soft enough to be changed.
_POSITION_BIAS: Final = 5.0
_POSITION_PAIRS: Final = 3
_QUERIES: Final = 256
"""Queries that attend together."""


@dataclass(frozen=True)
class Shape:
    """What fixes the parameters of a model.

    ``vocabulary`` V, ``width`` D (a multiple of twice the ``heads`` H), ``layers``, ``hidden``
    units of the gated MLP, ``context`` the longest sequence in tokens; ``marks`` of a model that
    knows rows and columns of grids (``grid_model.py``).

    >>> Shape(vocabulary=72).parameters
    206912
    """

    vocabulary: int
    width: int = 64
    layers: int = 4
    heads: int = 4
    hidden: int = 176
    context: int = 512
    marks: Marks | None = None

    def __post_init__(self) -> None:
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} must be a multiple of 2 x {self.heads} heads")

    @property
    def head_width(self) -> int:
        """K, even: rotary positions turn pairs."""
        return self.width // self.heads

    @property
    def parameters(self) -> int:
        """All numbers of a checkpoint, the tied embedding counted once."""
        attention = 4 * self.width**2 + 4 * self.width
        block = attention + 3 * self.width * self.hidden + 2 * self.width
        embeddings = self.vocabulary + (2 * SIDE if self.marks else 0)
        return embeddings * self.width + self.layers * block + self.width

    def with_context(self, context: int) -> Shape:
        """The same with room for longer texts: rotary positions need no new parameters."""
        if context < self.context:
            raise ConfigError(f"context {context} is less than the base's {self.context}")
        return replace(self, context=context)

    def config(self) -> dict[str, object]:
        """The ``config.json`` of this shape."""
        kind: dict[str, object] = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
        if self.marks is not None:
            kind = {"model_type": "mull_grid", "grid_marks": asdict(self.marks)}
        return {
            **kind,
            "vocab_size": self.vocabulary,
            "hidden_size": self.width,
            "intermediate_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "hidden_act": "silu",
            "max_position_embeddings": self.context,
            "rms_norm_eps": _EPSILON,
            "rope_theta": _THETA,
            "attention_bias": True,
            "mlp_bias": False,
            "attention_dropout": 0.0,
            "tie_word_embeddings": True,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "torch_dtype": "bfloat16",
        }


class Norm(nn.Module):
    """Root-mean-square normalisation with a learned gain."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), _EPSILON)


class Attention(nn.Module):
    """Causal multi-head attention with rotary positions."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.q_proj = nn.Linear(shape.width, shape.width)
        self.k_proj = nn.Linear(shape.width, shape.width)
        self.v_proj = nn.Linear(shape.width, shape.width)
        # The checkpoint format has an output bias as well; it stays zero.
        self.o_proj = nn.Linear(shape.width, shape.width)
        self.o_proj.bias.requires_grad_(False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """[B, T, D] → [B, T, D]; ``cos`` and ``sin`` [T, K] or [B, 1, T, K]."""
        rows, length, _ = x.shape
        q, k, v = (
            project(x).view(rows, length, self.heads, -1).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        mixed = _attend(q, k, v)
        out: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(rows, length, -1))
        return out


class Mlp(nn.Module):
    """Gated feed-forward layer (SwiGLU)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.width, shape.hidden, bias=False)
        self.up_proj = nn.Linear(shape.width, shape.hidden, bias=False)
        self.down_proj = nn.Linear(shape.hidden, shape.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Block(nn.Module):
    """One layer: attention, then MLP, each on the normalised stream and added to it."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = Norm(shape.width)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = Norm(shape.width)
        self.mlp = Mlp(shape)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Trunk(nn.Module):
    """Embedding, layers, final norm; the ``model.`` part of the checkpoint."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = Norm(shape.width)


class Llama(nn.Module):
    """Token ids → logits of the next token, tied embeddings.

    >>> Llama(Shape(vocabulary=10))(torch.zeros(2, 5, dtype=torch.long)).shape
    torch.Size([2, 5, 10])
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.model = Trunk(shape)
        size = shape.head_width
        rates = _THETA ** (-torch.arange(0, size, 2, dtype=torch.float32) / size)
        # Padding goes beyond a context that no batch is as long as.
        positions = torch.arange(padded_length(shape.context), dtype=torch.float32)
        angles = positions[:, None] * rates
        self.register_buffer("cos", torch.cat((angles, angles), -1).cos(), persistent=False)
        self.register_buffer("sin", torch.cat((angles, angles), -1).sin(), persistent=False)

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Draw all weights anew.

        Layers start by writing nothing into the stream, so that tokens are told apart by their
        embeddings from the first step on; position heads are set as the module's head says.
        """
        generator = torch.Generator().manual_seed(seed)
        for name, weight in self.named_parameters():
            if weight.dim() == 1:
                weight.fill_(0.0 if name.endswith("bias") else 1.0)
            elif name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.zero_()
            else:
                scale = 1.0 if "embed_tokens" in name else 0.5
                weight.normal_(0.0, scale * self.shape.width**-0.5, generator=generator)
        for distance in range(1, min(4, self.shape.heads)):
            self._look_back(head=distance - 1, distance=distance)

    def _look_back(self, head: int, distance: int) -> None:
        """Set a head of the first layer to prefer tokens ``distance`` places back."""
        block = cast("Block", self.model.layers[0])
        queries, keys = block.self_attn.q_proj.bias, block.self_attn.k_proj.bias
        start, half = head * self.shape.head_width, self.shape.head_width // 2
        for pair in range(min(_POSITION_PAIRS, half)):
            # A query at m and a key at n meet as cos((m - n) rate - angle): largest at `distance`.
            angle = distance * _THETA ** (-pair / half)
            keys[start + pair] = _POSITION_BIAS
            queries[start + pair] = _POSITION_BIAS * math.cos(angle)
            queries[start + half + pair] = -_POSITION_BIAS * math.sin(angle)

    def embed(self, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings [B, T, D] of tokens [B, T]; cosine and sine of their positions [T, K]."""
        length = ids.shape[1]
        return self.model.embed_tokens(ids), self.cos[:length], self.sin[:length]  # type: ignore[index]

    def hidden(self, ids: Tensor) -> Tensor:
        """[B, T] → the normalised stream [B, T, D]."""
        x, cos, sin = self.embed(ids)
        if torch.is_autocast_enabled(ids.device.type):
            # Autocast covers products only; the stream itself must be asked to be narrow.
            x = x.to(torch.get_autocast_dtype(ids.device.type))
        cos, sin = cos.to(x.dtype), sin.to(x.dtype)
        for block in self.model.layers:
            x = block(x, cos, sin)
        out: Tensor = self.model.norm(x)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., D] → [..., V]."""
        return F.linear(hidden, self.model.embed_tokens.weight)

    def forward(self, ids: Tensor) -> Tensor:
        return self.logits(self.hidden(ids))


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention [B, H, T, K].

    On CPUs by plain products, a block of queries at a time with the keys up to its end: forward and
    backward in a half to a sixth of the time of ``scaled_dot_product_attention`` at 64 to 1,024
    tokens and heads of 16 to 64 in bfloat16, whose kernel spends it outside of the products.
    """
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    rows, heads, length, width = q.shape
    q, k, v = (x.reshape(rows * heads, length, width) for x in (q * width**-0.5, k, v))
    parts = []
    for start in range(0, length, _QUERIES):
        stop = min(start + _QUERIES, length)
        ahead = torch.full((stop - start, stop), -math.inf, dtype=q.dtype).triu(start + 1)
        scores = torch.baddbmm(ahead, q[:, start:stop], k[:, :stop].transpose(1, 2))
        parts.append(torch.bmm(torch.softmax(scores, -1), v[:, :stop]))
    return torch.cat(parts, 1).view(rows, heads, length, width)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding, halves paired as in Llama checkpoints."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


def save_model(model: Llama, folder: Path) -> None:
    """Write ``config.json``, ``generation_config.json`` and last bfloat16 ``model.safetensors``.

    Weights in a folder say that a model is finished: what else belongs to it is written before.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: weight.detach().to(torch.bfloat16).contiguous()
        for name, weight in model.named_parameters()
    }
    write_atomic(folder / "config.json", json.dumps(model.shape.config(), indent=2) + "\n")
    generation = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "do_sample": True}
    write_atomic(folder / "generation_config.json", json.dumps(generation, indent=2) + "\n")
    write_atomic(folder / "model.safetensors", save(weights, metadata={"format": "pt"}))


Model = TypeVar("Model", bound=Llama)


def load_model(folder: Path) -> Llama:
    """Read what :func:`save_model` wrote of a policy; see :func:`load_as`."""
    return load_as(policy_of, folder)


def load_plain(folder: Path) -> Llama:
    """As ``load_model``, for what starts from a model of plain texts; ``ConfigError`` for grids."""
    model = load_model(folder)
    if model.shape.marks is not None:
        raise ConfigError(
            f"{folder}: a model of grids; expected one of plain texts: name another base, or train "
            "this one further with mull arc adapt"
        )
    return model


def policy_of(shape: Shape) -> Llama:
    """A policy of a shape, a model of grids where it has marks; weights yet to be drawn."""
    from mull.training.grid_model import GridLlama  # a kind of Llama: it is written after it

    return Llama(shape) if shape.marks is None else GridLlama(shape)


def read_shape(folder: Path) -> Shape:
    """The shape that a ``config.json`` tells, whatever else the model may be.

    Raises:
        OSError, KeyError, TypeError, ValueError: there is none, or it is none.
    """
    config = json.loads((folder / "config.json").read_text("utf-8"))
    marks = config.get("grid_marks")
    return Shape(
        vocabulary=config["vocab_size"],
        width=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        hidden=config["intermediate_size"],
        context=config["max_position_embeddings"],
        marks=None if marks is None else Marks(**marks),
    )


def load_as(kind: Callable[[Shape], Model], folder: Path) -> Model:
    """Read what :func:`save_model` wrote, in float32.

    Raises:
        ModelLoadError: files are missing, or tensors do not fit the config.
    """
    try:
        model = kind(read_shape(folder))
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelLoadError(f"{folder} holds no model written by mull train: {error}") from error
    return model
