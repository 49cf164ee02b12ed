"""The checker of the house rules finds what it is there to find, and the house is clean."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("house_rules", ROOT / "tools/house_rules.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def rules(tmp_path: Path) -> ModuleType:
    """The checker, looking at an empty house."""
    module = load()
    (tmp_path / "src/mull").mkdir(parents=True)
    (tmp_path / "tests").mkdir()
    (tmp_path / "src/mull/fine.py").write_text("x = 1\n")
    module.ROOT = tmp_path  # type: ignore[attr-defined]
    module.SOURCE = tmp_path / "src/mull"  # type: ignore[attr-defined]
    return module


def plant(rules: ModuleType, text: str) -> None:
    (rules.SOURCE / "bad.py").write_text(text)


def test_a_clean_house_passes(rules: ModuleType) -> None:
    assert rules.lengths() == []
    assert rules.forbidden() == []


def test_long_files_and_functions_are_found(rules: ModuleType) -> None:
    plant(rules, "def f():\n" + "    x = 1\n" * 80 + "y = 1\n" * 520)
    assert rules.lengths() == [
        "src/mull/bad.py: 601 lines, at most 600",
        "src/mull/bad.py:1: f has 81 lines, at most 80",
    ]
    plant(rules, "def f():\n" + "    x = 1\n" * 79 + "y = 1\n" * 520)
    assert rules.lengths() == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from dill import loads",
        "import marshal as m",
        "x = torch.load(p)",
        "x = yaml.load(p)",
        "run(c, shell=True)",
        "eval(x)",
        "y = exec(x)",
        "raise NotImplementedError",
        "raise NotImplementedError('later')",
        "f(trust_remote_code=True)",
        "f(trust_remote_code=flag)",
        "import os.path, pickle",
        "from cloudpickle.compat import x",
        "os.system(x)",
        "np.load(x, allow_pickle=True)",
    ],
)
def test_forbidden_words_are_found(rules: ModuleType, line: str) -> None:
    plant(rules, f"\n{line}\n")
    assert len(rules.forbidden()) == 1
    assert rules.forbidden()[0].startswith("src/mull/bad.py:2: ")


def test_an_exception_gives_its_reason(rules: ModuleType) -> None:
    plant(rules, "exec(x)  # house-rule: runs the user's own file, in the sandbox\n")
    assert rules.forbidden() == []


@pytest.mark.parametrize(
    "line",
    [
        "model.eval()",
        "x = 1  # no pickle here",
        "'torch.load(x)'",
        "loader.exec_module(x)",
        "f(trust_remote_code=False)",
        "except_(NotImplementedError)",
        "np.load(x, allow_pickle=False)",
    ],
)
def test_what_only_looks_forbidden_is_not(rules: ModuleType, line: str) -> None:
    plant(rules, f"{line}\n")
    assert rules.forbidden() == []


@pytest.mark.timeout(30)  # it reads every file
def test_this_house_is_clean() -> None:
    module = load()
    assert module.lengths() == []
    assert module.forbidden() == []
