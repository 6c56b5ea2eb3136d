"""The `minigrad` command in this process, in a folder of its own."""

import pytest
from click.testing import CliRunner


class Outcome:
    """What a command left: exit code, stdout, stderr."""

    def __init__(self, result):
        self.code, self.out, self.err = result.exit_code, result.stdout, result.stderr

    def error(self) -> str:
        """The one sentence on stderr; a traceback or a second line fails."""
        lines = [line for line in self.err.splitlines() if not line.startswith(("figure:", " ", "100"))]
        assert len(lines) == 1 and lines[0].startswith("error: ") and not lines[0].endswith("."), self.err
        return lines[0].removeprefix("error: ")


@pytest.fixture
def minigrad(tmp_path, monkeypatch):
    """minigrad("train", "digits", …) in an empty folder."""
    from optim.lab.cli import main

    monkeypatch.chdir(tmp_path)

    def call(*args) -> Outcome:
        return Outcome(CliRunner().invoke(main, [str(a) for a in args]))

    return call


@pytest.fixture
def own_file(tmp_path):
    """A user's file with two methods, and things that are none."""
    path = tmp_path / "mine.py"
    path.write_text(
        "from dataclasses import dataclass\n"
        "from optim import Gradient, Method, Stopped\n\n\n"
        "@dataclass\n"
        "class Mine(Method):\n"
        "    lr: float = 0.5\n\n"
        "    def update(self, f, state):\n"
        "        return f.pullback(-self.lr)\n\n\n"
        "@dataclass\n"
        "class Half(Gradient):\n"
        "    def rule(self, site, memory, t):\n"
        "        return site.gradient(-0.5 * self.lr)\n\n\n"
        "class Fails(Method):\n"
        "    def update(self, f, state):\n"
        "        raise ValueError('no step\\nfor this')\n\n\n"
        "class NaN(Mine):\n"
        "    def update(self, f, state):\n"
        "        return f.pullback(float('nan'))\n\n\n"
        "class Halts(Mine):\n"
        "    def update(self, f, state):\n"
        "        if state['t'] == 3:\n"
        "            raise Stopped('the line search finds no lower loss; take another start')\n"
        "        return super().update(f, state)\n\n\n"
        "class Other:\n"
        "    pass\n"
    )
    return path
