"""Muon, batched over matrices of one shape: momentum steps with all singular values near one.

A tiny model has dozens of small matrices; orthogonalising them one at a time costs as much as the
rest of the step.  Here matrices of equal shape are stacked and handled by one batched product.

Source: K. Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"
(the quintic Newton-Schulz iteration and its coefficients); scaling to the size of an Adam step:
J. Liu et al. 2025, "Muon is scalable for LLM training" (arXiv 2502.16982), section 2.2.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import torch
from torch import Tensor

_QUINTIC: Final = (3.4445, -4.7750, 2.0315)
_ITERATIONS: Final = 5
# The usual root-mean-square of an Adam update: one rate then serves both optimizers' ranges.
_ADAM_RMS: Final = 0.2


def orthogonalise(matrices: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """The matrices [K, rows, columns] with their singular values moved to about one.

    Five Newton-Schulz steps bring them into roughly 0.7..1.2; exactness buys nothing here, so
    ``dtype`` may be bfloat16 (as in Jordan et al.); the result has the matrices' own dtype.
    """
    a, b, c = _QUINTIC
    tall = matrices.shape[-2] > matrices.shape[-1]
    x: Tensor = matrices.mT if tall else matrices
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    x = x.to(dtype or matrices.dtype)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    x = x.to(matrices.dtype)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised; for two-dimensional weights only.

    ``lr`` is the root-mean-square size of an update in units of ``0.2`` (an Adam step's);
    ``weight_decay`` is decoupled; ``dtype`` is that of the orthogonalisation.
    """

    def __init__(
        self,
        weights: Iterable[Tensor],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.dtype = dtype
        super().__init__(list(weights), {"lr": lr, "momentum": momentum, "decay": weight_decay})
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.dim() != 2:
                    raise ValueError(f"Muon takes matrices only, not shape {tuple(weight.shape)}")

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update; weights without a gradient stay."""
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    shapes.setdefault(weight.shape, []).append(weight)
            for weights in shapes.values():
                self._update(weights, group["lr"], group["momentum"], group["decay"])

    def _update(self, weights: list[Tensor], lr: float, momentum: float, decay: float) -> None:
        gradients = [w.grad for w in weights if w.grad is not None]
        buffers = [self._buffer(w) for w in weights]
        torch._foreach_lerp_(buffers, gradients, 1.0 - momentum)
        looked_ahead = torch._foreach_lerp(gradients, buffers, momentum)
        updates = orthogonalise(torch.stack(looked_ahead), self.dtype).unbind()
        rows, columns = weights[0].shape
        scale = lr * _ADAM_RMS * max(rows, columns) ** 0.5
        torch._foreach_mul_(weights, 1.0 - lr * decay)
        torch._foreach_add_(weights, updates, alpha=-scale)

    def _buffer(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weight)
        buffer: Tensor = state["momentum"]
        return buffer
