"""The README is true: its code runs, its commands run, its index points at what exists."""

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
INDEX = [
    [cell.strip().strip("`") for cell in line.strip("|").split("|")]
    for line in TEXT.partition("<!-- index")[2].partition("###")[0].splitlines()
    if line.startswith("|") and "---" not in line
][1:]


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.S)


def test_every_python_block_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    scope = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), scope)
    first, steps = capsys.readouterr().out.splitlines()
    assert float(first.split()[1]) < 0.8  # from 2.4
    losses = ast.literal_eval(steps)
    assert losses[0] > losses[1] > losses[2]
    assert (tmp_path / "graph.svg").read_text(encoding="utf-8").startswith("<svg")


COMMANDS = [shlex.split(line)[1:] for line in "".join(blocks("bash")).splitlines() if line.startswith("minigrad ")]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_runs(command, tmp_path, monkeypatch):
    from optim.lab.cli import main

    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert result.stdout


def test_the_two_commands_are_there_for_the_gate():
    for name in ("compare", "test"):
        assert re.search(rf"<!-- command: {name} -->\n```bash\n(.*?)```", TEXT, re.S), name


def test_the_index_is_not_empty_and_cites_its_sources():
    assert len(INDEX) >= 20
    assert all(re.match(r"^([TBLP](-[\w.–]+| ?fig [\d.]+|-alg \d|-fig [\d.]+)?(, )?)+$", row[0]) for row in INDEX), (
        INDEX
    )


@pytest.mark.parametrize("row", INDEX, ids=lambda row: f"{row[0]} {row[1][:30]}")
def test_the_index_points_at_what_exists(row):
    _, _, code, test, example = row
    module, _, names = code.partition(":")
    found = importlib.import_module(module)
    for name in names.split("."):
        found = getattr(found, name)
    path, _, function = test.partition("::")
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert function in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert not example or (ROOT / example).is_file()
