"""The house rules that no linter has: length of files and functions, no stubs, imports stay light.

Run by `make check`; prints the total so that every change sees it.
"""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "mull"
FILE_LINES = 600
FUNCTION_LINES = 80
IMPORT_SECONDS = 0.3
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
CALLS = {
    "torch.load": "safetensors only",
    "yaml.load": "no YAML objects",
    "eval": "nothing is evaluated",
    "exec": "nothing is evaluated",
    "os.system": "no shell",
    "os.popen": "no shell",
}
ARGUMENTS = {
    "allow_pickle": "safetensors and JSON only, no pickle",
    "shell": "no shell",
    "trust_remote_code": "no remote code",
}
HEAVY = ("torch", "transformers", "vllm", "ray", "matplotlib", "fastapi", "scipy", "math_verify")
IMPORTS = f"""
import sys, time
start = time.perf_counter()
import mull
seconds = time.perf_counter() - start
print(seconds)
print(*[name for name in {HEAVY!r} if name in sys.modules])
"""


def lengths() -> list[str]:
    """Files and functions that are too long, and the total."""
    wrong, sizes = [], []
    for path in sorted([*SOURCE.rglob("*.py"), *(ROOT / "tests").rglob("*.py")]):
        text = path.read_text(encoding="utf-8")
        lines = text.count("\n")
        if SOURCE in path.parents:
            sizes.append(lines)
        if lines > FILE_LINES:
            wrong.append(f"{path.relative_to(ROOT)}: {lines} lines, at most {FILE_LINES}")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                long = (node.end_lineno or node.lineno) - node.lineno + 1
                if long > FUNCTION_LINES:
                    place = f"{path.relative_to(ROOT)}:{node.lineno}"
                    wrong.append(f"{place}: {node.name} has {long} lines, at most {FUNCTION_LINES}")
    print(f"{sum(sizes)} lines in {len(sizes)} files, median {statistics.median(sizes):g}")
    return wrong


def forbidden() -> list[str]:
    """Imports, calls and names that must not stand in the package.

    A line that ends in ``house-rule: why`` is an exception with its reason.
    """
    wrong = []
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        lines = text.splitlines()
        for node in ast.walk(ast.parse(text)):
            why = broken_rule(node)
            if why and "house-rule:" not in lines[node.lineno - 1]:
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}: {why}")
    return wrong


def broken_rule(node: ast.AST) -> str | None:
    """Which rule a piece of code breaks, if any."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        if any(name.partition(".")[0] in MODULES for name in names):
            return "safetensors and JSON only, no pickle"
    if isinstance(node, ast.Raise) and "NotImplementedError" in ast.unparse(node):
        return "nothing exported is a stub"
    if isinstance(node, ast.Call):
        if ast.unparse(node.func) in CALLS:
            return CALLS[ast.unparse(node.func)]
        for keyword in node.keywords:
            off = isinstance(keyword.value, ast.Constant) and not keyword.value.value
            if keyword.arg in ARGUMENTS and not off:
                return ARGUMENTS[keyword.arg]
    return None


def imports() -> list[str]:
    """`import mull` is fast (the best of five, this may be a busy machine) and stays light."""
    seconds, heavy = [], ""
    for _ in range(5):
        command = [sys.executable, "-c", IMPORTS]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
        seconds.append(float(out[0]))
        heavy = out[1]
    wrong = [f"import mull loads {heavy}"] if heavy else []
    if min(seconds) > IMPORT_SECONDS:
        wrong.append(f"import mull takes {min(seconds):.2f} s, at most {IMPORT_SECONDS} s")
    return wrong


def main() -> int:
    wrong = [*lengths(), *forbidden(), *imports()]
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
