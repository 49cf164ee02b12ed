"""What every test shares: the folder of public data, and a clean environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Seeded, and with no clock of its own: a busy machine must not fail a law.
settings.register_profile(
    "mull", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("mull")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public data: MULL_DATA, else ../shared/data; the test is skipped without."""
    path = Path(os.environ.get("MULL_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no public data: set MULL_DATA to its folder ({path} does not exist)")
    return path
