"""The package: light to import, pointing down only, one place that knows CuPy."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = [*ROOT.glob("minigrad/**/*.py"), *ROOT.glob("optim/**/*.py")]


def imports(path):
    """Top-level names of the packages that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.partition(".")[0]


def test_importing_minigrad_loads_nothing_heavy():
    code = (
        "import sys, minigrad, optim; print([m for m in ('matplotlib', 'scipy', 'cupy', 'click') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT).stdout == "[]\n"


def test_only_the_backend_knows_cupy():
    assert {path.name for path in FILES if {"cupy", "cupyx"} & set(imports(path))} == {"backend.py"}


def test_minigrad_does_not_import_optim():
    assert [path for path in FILES if path.is_relative_to(ROOT / "minigrad") and "optim" in imports(path)] == []


def test_nothing_is_ever_unpickled():
    assert not any(
        "pickle" in imports(path) or "allow_pickle=True" in path.read_text(encoding="utf-8") for path in FILES
    )
