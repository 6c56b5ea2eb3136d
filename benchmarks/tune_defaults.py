"""Search the default settings of `minigrad train` and `compare`: python benchmarks/tune_defaults.py [PROBLEM …]

Every method gets the same number of trials, each of the same number of epochs from the same θ on the same batches;
the best three are tried again on two more seeds, and the mean loss over the seeds on the validation part decides. The
test part is never looked at. The points are a Latin hypercube over the ranges that `minigrad optimizers` prints, so
that every axis is covered evenly. A trial is a JSON line as soon as it is known, and a search that is started again
goes on where it stopped. At the end the table for `optim/lab/tuned.py` is printed.
"""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import click
import numpy as np

SEEDS, FINALISTS = (1, 2, 3), 3
EPOCHS = {"autoencoder": 16, "classifier": 10, "digits": 10}
SPECS = ["gd", "sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adadelta", "adam", "tonga"]
SPECS += ["centred", "acp", "kfac", "ekfac", "prong", "ubp", "ubp:centred", "ubp:acp"]
FIXED = {"acp": {"alpha": "max"}, "ubp:acp": {"inner.alpha": "max"}}  # what is not searched, beside the class's own


def ranges_of(spec: str) -> dict:
    """{setting: Range} of a method, its inner rule's settings as inner.NAME; words are not searched."""
    from optim.lab.methods import INNER, METHODS, Range

    head, _, inner = spec.partition(":")
    entry, prefix = (METHODS[head], "") if head != "ubp" else (INNER[inner or "gradient"], "inner.")
    return {prefix + name: found for name, found in entry.ranges.items() if isinstance(found, Range)}


def points(spec: str, trials: int) -> list[dict[str, float]]:
    """A Latin hypercube over a method's ranges: on every axis one point in each of `trials` equal parts."""
    from optim.lab.methods import hypercube

    return hypercube(np.random.default_rng(zlib.crc32(spec.encode())), ranges_of(spec), trials)


def trial(problem: str, spec: str, settings: dict, seed: int) -> float:
    """Validation loss after the budget; infinite where it diverged."""
    from optim.lab.catalogue import parse
    from optim.lab.runs import Budget, compare

    method = parse(spec, {**FIXED.get(spec, {}), **settings})
    (record,) = compare(problem, {spec: method}, Budget("epochs", EPOCHS[problem]), seed=seed, heldout="valid")
    return math.inf if record.diverged else record.last["test_loss"]


class Record:
    """The trials that are known, in a file of JSON lines."""

    def __init__(self, path: Path):
        self.path = path
        self.known: dict[tuple, float] = {}
        for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                continue  # a torn last line is a trial that was not finished
            loss = math.inf if line["loss"] is None else line["loss"]
            self.known[line["problem"], line["method"], json.dumps(line["settings"]), line["seed"]] = loss

    def loss(self, problem: str, spec: str, settings: dict, seed: int) -> float:
        """The loss of one trial, run unless it is known."""
        key = (problem, spec, json.dumps(settings), seed)
        if key not in self.known:
            self.known[key] = found = trial(problem, spec, settings, seed)
            line = {"problem": problem, "method": spec, "epochs": EPOCHS[problem], "seed": seed}
            line |= {"settings": settings, "loss": found if math.isfinite(found) else None}
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")
            click.echo(f"{problem:12} {spec:12} seed {seed} {found:10.4f}  {settings}", err=True)
        return self.known[key]


def search(problem: str, spec: str, trials: int, record: Record) -> dict[str, float]:
    """The best settings of a method."""
    first = {json.dumps(p): record.loss(problem, spec, p, SEEDS[0]) for p in points(spec, trials)}
    finalists = sorted(first, key=first.get)[:FINALISTS]
    means = {k: np.mean([record.loss(problem, spec, json.loads(k), seed) for seed in SEEDS]) for k in finalists}
    best = min(means, key=means.get)
    diverged = sum(not math.isfinite(loss) for loss in first.values())
    click.echo(f"{problem:12} {spec:12} mean {means[best]:9.4f}, {diverged} of {trials} diverged  {best}")
    return json.loads(best)


@click.command(help=__doc__)
@click.argument("problems", nargs=-1)
@click.option("-O", "specs", multiple=True, default=SPECS, help="These methods only.")
@click.option("--trials", default=10, show_default=True, help="For every method.")
@click.option("--record", type=click.Path(path_type=Path), default=Path(__file__).with_name("tuned.jsonl"))
def main(problems, specs, trials, record):
    record = Record(record)
    table = {
        problem: {spec: {**search(problem, spec, trials, record), **FIXED.get(spec, {})} for spec in specs}
        for problem in problems or EPOCHS
    }
    click.echo(json.dumps(table, indent=4))


if __name__ == "__main__":
    main()
