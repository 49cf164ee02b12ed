"""A device that is not there is heard of in one line, before anything is read."""

from pathlib import Path

import pytest
import torch

from mull.errors import ConfigError
from mull.training.device import check_device
from mull.training.lora_options import TrainLora
from mull.training.policy import TrainPolicy


@pytest.mark.parametrize("device", ["tpu", "", "cpu:0", "cuda:", "cuda:x", "cuda0"])
def test_only_cpu_and_cuda_are_devices(device: str) -> None:
    with pytest.raises(ConfigError, match="must be cpu, cuda or cuda:N"):
        check_device(device)


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:7"])
def test_a_gpu_that_torch_does_not_see_is_refused(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for make in (
        lambda: TrainPolicy(device=device),
        lambda: TrainLora(base=Path("m"), device=device),
    ):
        with pytest.raises(ConfigError, match=f"device {device} .* sees none: use"):
            make()


def test_the_cpu_is_always_there() -> None:
    check_device("cpu")
