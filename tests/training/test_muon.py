"""Laws of Muon: updates have the size asked for, whatever the shape and the gradient's scale."""

import pytest
import torch

from mull.training.muon import Muon, orthogonalise


@pytest.mark.parametrize("shape", [(16, 16), (16, 48), (48, 16)])
def test_singular_values_come_close_to_one(shape: tuple[int, int]) -> None:
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0)) * 100
    values = torch.linalg.svdvals(orthogonalise(matrices))
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_direction_is_that_of_the_polar_factor() -> None:
    matrix = torch.randn(1, 12, 20, generator=torch.Generator().manual_seed(1))
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    cosine = torch.cosine_similarity(orthogonalise(matrix).flatten(), (u @ v).flatten(), dim=0)
    assert cosine > 0.97


def test_stacked_matrices_are_updated_as_if_alone() -> None:
    start = torch.randn(4, 8, 12, generator=torch.Generator().manual_seed(2))
    slope = torch.randn(4, 8, 12, generator=torch.Generator().manual_seed(3))
    together = [torch.nn.Parameter(w.clone()) for w in start]
    alone = [torch.nn.Parameter(w.clone()) for w in start]
    optimizers = [Muon(together, lr=0.1), *(Muon([w], lr=0.1) for w in alone)]
    for weight, gradient in zip([*together, *alone], [*slope, *slope], strict=True):
        weight.grad = gradient.clone()
    for optimizer in optimizers:
        optimizer.step()
    for one, two in zip(together, alone, strict=True):
        torch.testing.assert_close(one, two)


def test_a_step_has_the_size_of_an_adam_step() -> None:
    weight = torch.nn.Parameter(torch.zeros(64, 64))
    weight.grad = torch.randn(64, 64, generator=torch.Generator().manual_seed(4)) * 1e-3
    Muon([weight], lr=0.01).step()
    size = weight.detach().square().mean().sqrt()
    assert 0.5 < size / (0.2 * 0.01) < 1.5


def test_weights_without_a_gradient_stay() -> None:
    weight = torch.nn.Parameter(torch.ones(3, 3))
    Muon([weight], lr=1.0).step()
    assert torch.equal(weight, torch.ones(3, 3))


def test_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match="matrices only"):
        Muon([torch.nn.Parameter(torch.ones(3))], lr=0.1)
