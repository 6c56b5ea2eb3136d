"""All examples of a folder in one page: `minigrad gallery` runs them and writes index.html, which needs no network."""

from __future__ import annotations

import ast
import base64
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from minigrad.archive import replacing

from .errors import LabError, UsageError

SOURCES = {
    "T": "Thomas George, Factorized second order methods in neural networks, master's thesis, Université de Montréal",
    "B": "Jimmy Ba's tutorial on optimization",
    "L": "Learning as optimization, lecture",
    "P": "Christian Perone's deck on gradient-based optimization",
}
CITED = re.compile(r"\[((?:[TBLP]\b|[A-Z][^\]]*\d{4})[^\]]*)\]")  # [T-5.2, T-alg 2], [L; Martens 2010]
APART = re.compile(r";|,(?=\s*[TBLP]\b)")


@dataclass
class Example:
    """One example: its file, what it says of itself, and what it drew.

    Attributes
    ----------
    path : Path
    title : str
        The first paragraph of its docstring, without the sources.
    paragraphs, sources : list of str
    pictures : dict
        {file name: PNG}.
    failure : str or None
        The last line that it said when it failed.
    """

    path: Path
    title: str
    paragraphs: list[str]
    sources: list[str]
    pictures: dict[str, bytes] = field(default_factory=dict)
    failure: str | None = None

    @classmethod
    def read(cls, path: Path) -> Example:
        """The example of a file, not yet run."""
        try:
            text = ast.get_docstring(ast.parse(path.read_bytes())) or ""
        except (SyntaxError, ValueError):  # running it will say where
            text = ""
        sources = [part.strip() for found in CITED.findall(text) for part in APART.split(found)]
        title, *paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
        title = CITED.sub("", title).strip().rstrip(".").strip() or path.stem
        return cls(path, title, paragraphs, list(dict.fromkeys(sources)))

    def run(self, options: Sequence[str]) -> None:
        """Run it in a process of its own, and keep its pictures or the reason of its failure."""
        with tempfile.TemporaryDirectory() as folder:
            call = [sys.executable, str(self.path), "--out", folder, *options]
            done = subprocess.run(call, capture_output=True, text=True, errors="replace")
            self.pictures = {p.name: p.read_bytes() for p in sorted(Path(folder).glob("*.png"))}
        if done.returncode:
            said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
            self.failure = said[-1] if said else f"it ended with exit code {done.returncode}"
        elif not self.pictures:
            self.failure = "it drew no picture into --out"


def find(folder: Path) -> list[Example]:
    """The examples of a folder, NN_name.py, in their order.

    Raises
    ------
    UsageError
        There is no such folder, or no example in it.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}; give the one with the examples, as in minigrad gallery FOLDER")
    paths = sorted(p for p in folder.glob("*.py") if re.match(r"\d+_", p.name))
    if not paths:
        raise UsageError(f"{folder} holds no examples; they are called 01_name.py, 02_name.py, …")
    return [Example.read(path) for path in paths]


def build(folder: Path, out: Path, quick: bool, budget: float | None, tell: Callable[[str], None]) -> Path:
    """Run every example, and write the pictures and the page.

    Parameters
    ----------
    folder, out : Path
    quick : bool
        Pass --quick on.
    budget : float or None
        Pass --budget on.
    tell : callable
        Takes a line of progress.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    UsageError
        There are no examples.
    LabError
        Some failed, named after all have run; the page is there and says so too.
    """
    examples = find(folder)
    _make(out)
    options = ["--quick"] * quick + ([] if budget is None else ["--budget", f"{budget:g}"])
    for k, example in enumerate(examples, 1):
        tell(f"[{k}/{len(examples)}] {example.path.name}: {example.title}")
        example.run(options)
        for name, picture in example.pictures.items():
            with replacing(out / name) as stream:
                stream.write(picture)
        if example.failure:
            tell(f"{example.path.name} failed: {example.failure}")
    page = out / "index.html"
    with replacing(page) as stream:
        stream.write(html(examples).encode())
    if lost := [example.path.name for example in examples if example.failure]:
        raise LabError(f"{len(lost)} of {len(examples)} examples failed: {', '.join(lost)}; the rest is in {page}")
    return page


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LabError(f"{out} cannot be written ({error.strerror}); choose another --out") from error


# -------------------------------------------------------------------------------------------------------- the page

STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1c; --soft: #5d5d5d; --paper: #fdfdfc; --card: #f1f1ee; --line: #dcdcd6;
        --link: #0060a8; --bad: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e6e1; --soft: #a5a29b; --paper: #17181a; --card: #212326; --line: #383b40; --link: #7fbdf5;
          --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 60rem; color: var(--ink); background: var(--paper);
       font: 1.0625rem/1.6 system-ui, sans-serif; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.35rem; line-height: 1.3; margin: 0 0 .75rem; }
h2 .number { color: var(--soft); font-weight: 400; margin-right: .5rem; }
a { color: var(--link); text-decoration: none; }
a:hover { text-decoration: underline; }
nav ol { list-style: none; padding: 0; margin: 0; display: grid; gap: .15rem 2rem; }
nav .number { display: inline-block; min-width: 2rem; color: var(--soft); font-variant-numeric: tabular-nums; }
section { margin-top: 3.5rem; padding-top: 1.75rem; border-top: 1px solid var(--line); }
img { display: block; width: 100%; height: auto; margin: 0 0 1rem; padding: .5rem; background: #fff;
      border: 1px solid var(--line); border-radius: .5rem; }
p { margin: 0 0 .75rem; max-width: 46rem; }
.sources, .file { color: var(--soft); font-size: .92rem; }
.failure { color: var(--bad); }
details { margin-top: .75rem; background: var(--card); border: 1px solid var(--line); border-radius: .5rem; }
summary { cursor: pointer; padding: .5rem .9rem; font-family: ui-monospace, monospace; font-size: .9rem; }
pre { margin: 0; padding: .25rem .9rem .9rem; overflow-x: auto; font: .82rem/1.5 ui-monospace, monospace; tab-size: 4; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: 0; color: var(--soft); }
dd { margin: 0; }
"""


def html(examples: Sequence[Example]) -> str:
    """The page; the same examples and pictures give the same text."""
    entries = "\n".join(f'<li>{_number(e)}<a href="#{_anchor(e)}">{escape(e.title)}</a></li>' for e in examples)
    cited = {source.partition("-")[0] for e in examples for source in e.sources}
    legend = "\n".join(f"<dt>{key}</dt><dd>{escape(what)}</dd>" for key, what in SOURCES.items() if key in cited)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>minigrad: examples</title>
<style>{STYLE}</style>
</head>
<body>
<h1>minigrad: examples</h1>
<nav><ol>
{entries}
</ol></nav>
{"".join(map(_section, examples))}
<section id="sources"><h2>Sources</h2>
<dl>
{legend}
</dl></section>
</body>
</html>
"""


def _anchor(example: Example) -> str:
    return escape(re.sub(r"[^A-Za-z0-9_-]", "-", example.path.stem))


def _number(example: Example) -> str:
    return f'<span class="number">{example.path.name.partition("_")[0]}</span>'


def _section(example: Example) -> str:
    """Heading, pictures, caption, sources and the file itself, folded."""
    parts = [f'<section id="{_anchor(example)}">\n<h2>{_number(example)}{escape(example.title)}</h2>']
    for picture in example.pictures.values():
        data = base64.b64encode(picture).decode()
        parts.append(f'<img alt="{escape(example.title)}" src="data:image/png;base64,{data}">')
    parts += [f"<p>{escape(text)}</p>" for text in example.paragraphs]
    if example.failure:
        parts.append(f'<p class="failure">This example failed: {escape(example.failure)}</p>')
    if example.sources:
        parts.append(f'<p class="sources">Sources: {escape(", ".join(example.sources))}</p>')
    code = escape(example.path.read_text(encoding="utf-8", errors="replace"))
    parts.append(f"<details><summary>{escape(example.path.name)}</summary><pre><code>{code}</code></pre></details>")
    return "\n".join([*parts, "</section>\n"])
