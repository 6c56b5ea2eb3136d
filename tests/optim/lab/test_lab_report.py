"""The table's sentences, the progress line, and the picture."""

import io
import json

import pytest

from optim.lab import report
from optim.lab.figures import draw
from optim.lab.runs import Record


def of_function(method, values, minimum=0.0, **more):
    """A record of a function: R, and what it is above its minimum."""
    found = record(method, values, errors=False, **more)
    for line in found.lines:
        del line["test_loss"]
        if minimum is not None:
            line["gap"] = line["train_loss"] - minimum
    return found


def record(method, losses, pace=1.0, diverged=None, errors=True):
    """A record whose k-th line is at step 10 k and k · pace seconds."""
    lines = []
    for k, loss in enumerate(losses):
        line = {
            "method": method,
            "step": 10 * k,
            "seconds": k * pace,
            "train_loss": loss,
            "test_loss": loss and 2 * loss,
        }
        if errors:
            line |= {"train_error": loss and loss / 10, "test_error": loss and loss / 5}
        if loss is None:
            line["diverged"] = True
        lines.append(line)
    return Record(method, {"lr": 0.5}, lines, diverged)


@pytest.mark.parametrize(
    "label, inner", [("ubp:acp", "acp"), ("ubp", "sgd"), ("ubp:gradient", "sgd"), ("ubp:acp-2", "acp")]
)
def test_ubp_is_compared_with_its_inner_rule_at_equal_seconds(label, inner):
    slow = record(label, [4.0, 3.0, 2.0], pace=2.0)  # 3.0 after 2 s, better by updates
    (said,) = report.remarks([slow, record(inner, [4.0, 3.5, 2.5])])
    assert said.startswith(
        f"{label} loses to its inner rule {inner} at equal training time (2 s): training loss 3 against 2.5"
    )


def test_nothing_is_said_where_ubp_wins_or_has_no_company():
    ubp = record("ubp:acp", [4.0, 1.0])
    assert report.remarks([ubp, record("acp", [4.0, 1.5])]) == []
    assert report.remarks([ubp, record("sgd", [4.0, 0.5])]) == []
    assert report.remarks([ubp, record("acp", [4.0, None], diverged="boom")]) == []


def test_table():
    text = report.table(
        [record("a", [4.0, 1.23456]), record("b", [4.0, 1.0]), record("c", [4.0, None], diverged="boom")]
    )
    head, a, b, c = text.splitlines()
    assert a.split() == ["a", "10", "1.00", "1.235", "2.469", "12.35%", "24.69%"]
    assert b.split() == ["b", "10", "1.00", "1*", "2*", "10.00%*", "20.00%*"]
    assert c.split() == ["c", "10", "1.00", "diverged", "–", "–", "–"]
    assert head.split("  ")[0] == "method" and "train error" in head
    assert "error" not in report.table([record("a", [4.0, 1.0], errors=False)])


def test_table_of_a_function():
    text = report.table([of_function("a", [4.0, 1.5], 1.0), of_function("b", [4.0, 1.25], 1.0)])
    assert text.splitlines()[0].split() == ["method", "updates", "seconds", "R", "above", "the", "minimum"]
    assert text.splitlines()[2].split() == ["b", "10", "1.00", "1.25*", "0.25*"]
    assert "above" not in report.table([of_function("a", [4.0, 1.5])])  # the same number twice
    assert "above" not in report.table([of_function("a", [4.0, -1.5], None)])


def test_a_stop_is_a_remark_and_no_divergence():
    stopped = of_function("bfgs", [4.0, 1.5])
    stopped.stopped = "no lower loss along the direction."
    assert report.remarks([stopped]) == ["bfgs stopped at update 10: no lower loss along the direction."]
    assert report.divergence([stopped]) is None
    (row,) = report.rows([stopped])
    assert row["stopped"] is True and row["diverged"] is False and row["reason"] == stopped.stopped
    assert "1.5" in report.table([stopped])


def test_divergence_names_the_remedy():
    assert report.divergence([record("a", [1.0])]) is None
    lost = record("b", [4.0, 2.0, None], diverged="its loss is not finite")
    told = report.divergence([record("a", [1.0]), lost])
    assert told == (
        "b diverged at update 20 (its loss is not finite) and is saved as it was at update 10; "
        "take a smaller rate, such as --set b.lr=0.05"
    )
    assert "--set lr=0.05" in report.divergence([lost])
    lost.settings = {"damping": 1.0}
    assert report.divergence([lost]).endswith("update 10; try other settings, minigrad optimizers lists them")
    at_once = record("b", [None], diverged="its loss is not finite")
    assert "it was so before the first update: look at the data" in report.divergence([at_once])


def test_rows_are_json():
    (row,) = report.rows([record("b", [4.0, None], diverged="boom")])
    assert json.loads(json.dumps(row, allow_nan=False))["reason"] == "boom"


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Company:
    """What Progress reads of a comparison."""

    def __init__(self, share):
        self.share = share
        self.records = [record("acp", [4.0, 1.5])]


class FakeRun:
    record, step = record("acp", [4.0, 1.5]), 321


def test_progress_in_place_on_a_terminal():
    company, terminal = Company(0.25), Terminal()
    progress = report.Progress(company, terminal)
    company.share = 0.5
    progress.start -= 90.0  # a quarter took a minute and a half
    progress.tick(FakeRun)
    assert terminal.getvalue().startswith("\r 50%  acp  update 321  loss 1.5  ETA 3:00")
    progress.close()
    assert terminal.getvalue().endswith("\r\x1b[K") and "\n" not in terminal.getvalue()


# ------------------------------------------------------------------------------------------------------ the picture


def picture(*records):
    stream = io.BytesIO()
    draw(records, "digits: a title", "digits8, N = 3,600", stream)
    return stream.getvalue()


def size(png):
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def test_pictures_are_png_and_the_same_each_time():
    records = [record("sgd", [4.0, 1.0, 0.5]), record("adam", [4.0, 0.9, 0.01])]
    png = picture(*records)
    assert png == picture(*records) and b"Software" not in png
    width, height = size(png)
    without_errors = size(picture(record("sgd", [4.0, 1.0], errors=False)))
    assert without_errors[0] == width and without_errors[1] < height  # one row of axes less


def test_the_axes(monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *args, **kw: drawn.append(figure))
    wide, flat = [100.0, 10.0, 1.0], [4.0, 3.0, 2.0]
    exploded = record("sgd", [4.0, 1e9, None], diverged="boom", errors=False)
    for records in (
        [record("a", wide, errors=False)],
        [record("b", flat)],
        [record("c", flat, errors=False), exploded],
    ):
        draw(records, "", "", io.BytesIO())
    log, linear, squeezed = (figure.axes for figure in drawn)
    assert log[0].get_yscale() == "log" and linear[0].get_yscale() == "linear"
    assert [ax.get_xlabel() for ax in log] == ["updates", "training time in seconds"]
    assert [ax.get_ylabel() for ax in linear] == ["loss", "", "error rate", ""]
    solid, dashed = log[1].lines
    assert solid.get_linestyle() == "-" and dashed.get_linestyle() == "--"
    assert list(solid.get_xdata()) == [0, 1, 2] and list(solid.get_ydata()) == wide
    assert list(log[0].lines[1].get_xdata()) == [0, 10, 20] and list(dashed.get_ydata()) == [200, 20, 2]
    assert squeezed[0].get_ylim()[1] < 20  # not 1e9
    labels = [text.get_text() for text in drawn[2].legends[0].get_texts()]
    assert labels == ["sgd (diverged)", "c", " ", "training", "test"]


def test_functions_are_drawn_above_their_minimum(monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *args, **kw: drawn.append(figure))
    solved = of_function("newton", [4.0, 1.0 + 1e-9, 1.0, 1.0 - 1e-17], 1.0)
    solved.stopped = "converged"
    for records in (
        [of_function("a", [4.0, 2.0, 1.5], 1.0), solved],
        [of_function("a", [1.0, -5.0, -5e4], None), of_function("b", [1.0, 0.5, 0.1], None)],
    ):
        draw(records, "", "", io.BytesIO())
    gap, unbounded = drawn
    assert [ax.get_ylabel() for ax in gap.axes] == ["R above its minimum", ""]
    assert [ax.get_ylabel() for ax in unbounded.axes] == ["R", ""]
    assert gap.axes[0].get_yscale() == "log" and unbounded.axes[0].get_yscale() == "symlog"
    exact = gap.axes[0].lines[1].get_ydata()
    assert len(exact) == 4 and exact[2] == exact[3] == 3e-16  # solved to rounding, and still on the picture
    assert gap.axes[0].get_ylim()[0] > 0 and unbounded.axes[0].get_ylim()[0] < -5e4
    labels = [text.get_text() for text in gap.legends[0].get_texts()]
    assert labels == ["a", "newton (stopped)"]  # and no strokes for a test part
