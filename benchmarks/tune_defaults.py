"""Search the default settings of `minigrad train` and `compare`: python benchmarks/tune_defaults.py [PROBLEM …]

Every method gets the same number of trials, each of the same number of epochs from the same θ on the same batches;
the loss on the validation part decides, the test part is never looked at. The points are a Latin hypercube over the
ranges that `minigrad optimizers` prints, so that every axis is covered evenly. A trial is a JSON line as soon as it
is known, and a search that is started again goes on where it stopped. At the end the table for `optim/lab/tuned.py`
is printed.
"""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import click
import numpy as np

EPOCHS = {"autoencoder": 16, "classifier": 10, "digits": 10}
SPECS = ["gd", "sgd", "momentum", "nesterov", "adam", "centred", "acp", "ubp", "ubp:centred", "ubp:acp"]
FIXED = {"acp": {"alpha": "max"}, "ubp:acp": {"inner.alpha": "max"}}  # what is not searched, beside the class's own


def ranges_of(spec: str) -> dict:
    """{setting: Range} of a method, its inner rule's settings as inner.NAME."""
    from optim.lab.catalogue import INNER, METHODS

    head, _, inner = spec.partition(":")
    if head != "ubp":
        return dict(METHODS[head].ranges)
    return {f"inner.{name}": found for name, found in INNER[inner or "gradient"].ranges.items()}


def points(spec: str, trials: int) -> list[dict[str, float]]:
    """A Latin hypercube over a method's ranges: on every axis one point in each of `trials` equal parts."""
    rng = np.random.default_rng(zlib.crc32(spec.encode()))
    columns = {}
    for name, found in ranges_of(spec).items():
        unit = (rng.permutation(trials) + rng.random(trials)) / trials
        low, high = (math.log(found.low), math.log(found.high)) if found.log else (found.low, found.high)
        values = low + unit * (high - low)
        columns[name] = [float(f"{math.exp(v) if found.log else v:.3g}") for v in values]
    return [dict(zip(columns, row)) for row in zip(*columns.values())]


def trial(problem: str, spec: str, settings: dict) -> float:
    """Validation loss after the budget; infinite where it diverged."""
    from optim.lab.catalogue import parse
    from optim.lab.runs import Budget, compare

    method = parse(spec, {**FIXED.get(spec, {}), **settings})
    (record,) = compare(problem, {spec: method}, Budget("epochs", EPOCHS[problem]), seed=1, heldout="valid")
    return math.inf if record.diverged else record.last["test_loss"]


def search(problem: str, spec: str, trials: int, known: dict, record: Path) -> None:
    """Run the trials that are not known yet."""
    for settings in points(spec, trials):
        key = (problem, spec, json.dumps(settings))
        if key not in known:
            known[key] = trial(problem, spec, settings)
            loss = known[key] if math.isfinite(known[key]) else None
            line = {"problem": problem, "method": spec, "epochs": EPOCHS[problem], "settings": settings, "loss": loss}
            with record.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")
            click.echo(f"{problem:12} {spec:12} {known[key]:10.4f}  {settings}", err=True)


def read(record: Path) -> dict:
    """{(problem, method, settings): loss} of the trials so far; a torn last line is one that was not finished."""
    known = {}
    for text in record.read_text(encoding="utf-8").splitlines() if record.exists() else []:
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        loss = math.inf if line["loss"] is None else line["loss"]
        known[line["problem"], line["method"], json.dumps(line["settings"])] = loss
    return known


@click.command(help=__doc__)
@click.argument("problems", nargs=-1)
@click.option("-O", "specs", multiple=True, default=SPECS, help="These methods only.")
@click.option("--trials", default=10, show_default=True, help="For every method.")
@click.option("--record", type=click.Path(path_type=Path), default=Path(__file__).with_name("tuned.jsonl"))
def main(problems, specs, trials, record):
    known = read(record)
    table = {}
    for problem in problems or EPOCHS:
        table[problem] = {}
        for spec in specs:
            search(problem, spec, trials, known, record)
            tried = [p for p in points(spec, trials) if (problem, spec, json.dumps(p)) in known]
            best = min(tried, key=lambda p: known[problem, spec, json.dumps(p)])
            table[problem][spec] = {**best, **FIXED.get(spec, {})}
            diverged = sum(not math.isfinite(known[problem, spec, json.dumps(p)]) for p in tried)
            loss = known[problem, spec, json.dumps(best)]
            click.echo(f"{problem:12} {spec:12} best {loss:9.4f} of {trials} trials, {diverged} diverged  {best}")
    click.echo(json.dumps(table, indent=4))


if __name__ == "__main__":
    main()
