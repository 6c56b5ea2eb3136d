"""`minigrad gallery`: every example is run in order and shown on one page that needs nothing else."""

import base64
from html.parser import HTMLParser
from pathlib import Path

import pytest

from optim.lab import gallery

ROOT = Path(__file__).parents[3]
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
EXAMPLE = '''"""A picture of <one> idea & more [T-5.2, T-alg 2; Le Roux, Manzagol & Bengio 2007].

The first paragraph, over
two lines with [W b] in it.

The second: "quoted", a <b> b [P].
"""
import argparse, base64, pathlib, sys
parser = argparse.ArgumentParser()
parser.add_argument("--out", type=pathlib.Path)
parser.add_argument("--quick", action="store_true")
parser.add_argument("--budget")
given = parser.parse_args()
print("noise on stdout")
png = base64.b64decode(PICTURE)
(given.out / (pathlib.Path(__file__).stem + ".png")).write_bytes(png)
pathlib.Path("calls.txt").open("a").write(f"{pathlib.Path(__file__).name} {given.quick} {given.budget}\\n")
'''.replace("PICTURE", repr(base64.b64encode(PNG).decode()))


class Page(HTMLParser):
    """What stands in a page; unbalanced tags fail."""

    VOID = {"meta", "img"}

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text, self.ids, self.links = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.ids += [value for name, value in attributes if name == "id"]
        self.links += [value for name, value in attributes if name in ("href", "src")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def examples(tmp_path):
    """Two good examples around a bad one, a shared module, and files that are no examples."""
    folder = tmp_path / "examples"
    folder.mkdir()
    for name in ("01_first.py", "03_third.py"):
        (folder / name).write_text(EXAMPLE, encoding="utf-8")
    (folder / "slides.py").write_text("raise SystemExit('not an example')")
    (folder / "notes.txt").write_text("")
    return folder


def test_all_examples_on_one_page(minigrad, examples):
    done = minigrad("gallery", "--quick")
    assert done.code == 0 and done.out == "gallery/index.html\n"
    assert [line[:6] for line in done.err.splitlines()] == ["[1/2] ", "[2/2] "]
    assert Path("calls.txt").read_text() == "01_first.py True None\n03_third.py True None\n"
    assert sorted(p.name for p in Path("gallery").iterdir()) == ["01_first.png", "03_third.png", "index.html"]
    assert Path("gallery/01_first.png").read_bytes() == PNG
    page = Page(Path("gallery/index.html").read_text(encoding="utf-8"))
    assert page.ids == ["01_first", "03_third", "sources"]
    assert {link for link in page.links if link.startswith("#")} == {"#01_first", "#03_third"}
    pictures = [link for link in page.links if link.startswith("data:")]
    assert len(pictures) == 2 and base64.b64decode(pictures[0].partition(",")[2]) == PNG
    assert len(page.links) == 4  # nothing from elsewhere
    text = "".join(page.text)
    assert "A picture of <one> idea & more" in text and "with [W b] in it." in text
    assert "Sources: T-5.2, T-alg 2, Le Roux, Manzagol & Bengio 2007, P" in text
    assert EXAMPLE in text  # the code, as it is
    assert "Christian Perone" in text and "Jimmy Ba" not in text


def test_the_page_is_the_same_each_time(minigrad, examples):
    pages = []
    for out in ("a", "b"):
        assert minigrad("gallery", examples, "--out", out, "--budget", "2.5").code == 0
        pages.append(Path(out, "index.html").read_bytes())
    assert pages[0] == pages[1] and "01_first.py False 2.5\n" in Path("calls.txt").read_text()


def test_a_failing_example_is_named_and_the_rest_goes_on(minigrad, examples):
    (examples / "02_bad.py").write_text('"""Bad."""\nraise ValueError("no <luck>")\n')
    (examples / "04_silent.py").write_text('"""Draws nothing."""\n')
    (examples / "05_broken.py").write_text('"""Broken."""\nif\n')
    done = minigrad("gallery")
    assert done.code == 1 and done.out == ""
    assert "02_bad.py failed: ValueError: no <luck>" in done.err
    assert "04_silent.py failed: it drew no picture into --out" in done.err
    assert "05_broken.py failed: SyntaxError" in done.err
    last = done.err.splitlines()[-1]
    assert last.startswith("error: 3 of 5 examples failed: 02_bad.py, 04_silent.py, 05_broken.py; the rest is in")
    text = "".join(Page(Path("gallery/index.html").read_text(encoding="utf-8")).text)
    assert "This example failed: ValueError: no <luck>" in text and Path("gallery/03_third.png").is_file()


@pytest.mark.parametrize(
    "call, code, words",
    [
        ("gallery", 2, "there is no folder examples; give the one with the examples, as in minigrad gallery FOLDER"),
        ("gallery .", 2, ". holds no examples; they are called 01_name.py"),
        ("gallery --budget 0", 2, "invalid value for '--budget'"),
        ("gallery pictures --out file", 1, "file cannot be written"),
    ],
)
def test_refusals(call, code, words, minigrad):
    Path("file").write_text("")
    Path("pictures").mkdir()
    Path("pictures/01_x.py").write_text("")
    found = minigrad(*call.split())
    assert found.code == code and words in found.error()


def test_this_projects_examples_have_a_title_and_a_caption():
    for example in gallery.find(ROOT / "examples"):
        assert example.title != example.path.stem and example.paragraphs, example.path.name
