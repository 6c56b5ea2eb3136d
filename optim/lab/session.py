"""From what a command was asked to a comparison that is ready to train, new or resumed, and its folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from minigrad import backend, data
from minigrad.archive import replacing

from . import catalogue, machine, problems, recorder
from .errors import LabError, UsageError
from .folder import Folder
from .functions import FUNCTIONS
from .methods import METHODS
from .runs import UNITS, Budget, Comparison
from .tuned import tuned


class Session:
    """One call of train or compare.

    Attributes
    ----------
    folder : Folder
    facts : dict
        What run.json says.
    comparison : Comparison
    """

    def __init__(self, folder: Folder, facts: dict[str, Any], comparison: Comparison):
        self.folder, self.facts, self.comparison = folder, facts, comparison
        comparison.folder = folder
        if facts.get("record"):
            recorder.attach(comparison, folder.path)

    @classmethod
    def begin(cls, problem: str | None, specs: tuple[str, ...], pairs: tuple[str, ...], **asked: Any) -> Session:
        """A new run: everything is checked, loaded and tried for one step before a folder is made.

        Parameters
        ----------
        problem : str or None
        specs, pairs : tuple of str
            What -O and --set said; settings that start with "problem." are a function's.
        **asked
            steps, epochs, seconds, seed, source, device, dtype, out, overwrite, and record for one method.
        """
        if problem is None:
            raise UsageError(f"name a problem: {', '.join([*problems.PROBLEMS, *FUNCTIONS])}")
        own, pairs = _divided(pairs)
        chosen = problems.problem(problem, own)
        if not specs:
            raise UsageError(f"name a method with -O; there are {', '.join(METHODS)}")
        _check_seed(asked["seed"])
        methods, described = _methods(problem, specs, pairs)
        budget = asked_budget(asked) or Budget(*chosen.budget)
        path = Path(asked["out"]) / f"{problem}-{asked['seed']}"
        Folder.check_free(path, asked["overwrite"])  # before the data is loaded
        facts = {
            "problem": problem,
            "problem_settings": chosen.settings,
            "data": _absolute(asked["source"] or chosen.data),
            "seed": asked["seed"],
            "device": asked["device"],
            "dtype": asked["dtype"] or chosen.dtype,
            "budget": {budget.unit: budget.amount},
            "methods": described,
            **({"record": True} if asked.get("record") else {}),
        }
        comparison, sizes = _assemble(facts, methods, budget)
        if asked.get("record"):
            recorder.check(comparison)
        folder = Folder.create(path, asked["overwrite"])
        (path / recorder.FILE).unlink(missing_ok=True)
        facts |= {**sizes, **machine.facts()}
        folder.describe(facts)
        return cls(folder, facts, comparison)

    @classmethod
    def reopen(cls, path: Path, asked: dict[str, Any]) -> Session:
        """A run from its folder; `asked` may hold a new budget.

        Raises
        ------
        LabError
            The folder holds no run, or the data has changed since.
        """
        folder = Folder(path)
        facts = folder.facts()
        methods = {m["label"]: catalogue.parse(m["spec"], m["settings"]) for m in facts["methods"]}
        budget = asked_budget(asked) or Budget(*next(iter(facts["budget"].items())))
        comparison, sizes = _assemble(facts, methods, budget)
        if sizes["fingerprint"] != facts["fingerprint"]:
            changed = facts["data"] or facts["problem"]
            raise LabError(f"{changed} is no longer what {path} was trained on; train anew with another --out")
        session = cls(folder, facts, comparison)
        comparison.resume()
        facts["budget"] = {budget.unit: budget.amount}
        facts.pop("results", None)
        folder.describe(facts)
        return session

    def picture(self) -> None:
        """Write figure.png."""
        from .figures import draw  # matplotlib is slow to import

        facts = self.facts
        title = f"{facts['problem']}: {problems.problem(facts['problem']).title}"
        with replacing(self.folder.path / "figure.png") as stream:
            draw(self.comparison.records, title, _subtitle(facts), stream)
        if facts.get("record"):
            recorder.finish(self.comparison, self.folder.path, title)

    def complete(self, results: list[dict]) -> None:
        """Add the results to run.json."""
        self.facts["results"] = results
        self.folder.describe(self.facts)


def _subtitle(facts: dict[str, Any]) -> str:
    """What was trained on, in a line."""
    if facts["data"] is None:
        words = [facts["formula"], *(f"{name} = {value:,g}" for name, value in facts["problem_settings"].items())]
    else:
        words = [os.path.basename(facts["data"]), f"N = {facts['train']:,}"]
    words += [f"batch {facts['batch']}"] if facts["batch"] else []
    return ", ".join([*words, f"seed {facts['seed']}", facts["dtype"]])


def _divided(pairs: tuple[str, ...]) -> tuple[dict[str, str], tuple[str, ...]]:
    """What --set said of the problem, {setting: text}, and what it said of the methods."""
    single = [pair.strip() for text in pairs for pair in text.split(",")]
    own = [pair for pair in single if pair.startswith("problem.")]
    return catalogue.assign(["problem"], own)["problem"], tuple(pair for pair in single if pair not in own)


def _check_seed(seed: int) -> None:
    try:
        backend.random_key(seed)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _methods(problem: str, specs: tuple[str, ...], pairs: tuple[str, ...]) -> tuple[dict, list[dict]]:
    """{label: Method}, and the same in words for run.json."""
    names = catalogue.labels(specs)
    changes = catalogue.assign(names, pairs)
    methods, described = {}, []
    for name, spec in zip(names, specs):
        methods[name] = catalogue.parse(spec, {**tuned(problem, spec), **changes[name]})
        settings = catalogue.settings_of(methods[name])
        changed = {key: settings[key] for key in changes[name]}
        described.append({"label": name, "spec": _absolute_spec(spec), "changed": changed, "settings": settings})
    return methods, described


def asked_budget(asked: dict[str, Any]) -> Budget | None:
    """The one budget that was asked for."""
    given = {unit: asked[unit] for unit in UNITS if asked[unit] is not None}
    if len(given) > 1:
        raise UsageError(f"give one of --steps, --epochs and --seconds, not {len(given)}")
    return Budget(*next(iter(given.items()))) if given else None


def _assemble(facts: dict, methods: dict, budget: Budget) -> tuple[Comparison, dict]:
    """Load the data if there is any and set up the runs; the sizes of it for run.json."""
    chosen = problems.problem(facts["problem"], facts.get("problem_settings"))
    task = chosen.open(facts["data"], facts["device"], facts["dtype"])
    return Comparison(task, methods, budget, facts["seed"]), task.facts()


def _absolute(source: str | None) -> str | None:
    """A data set's name as it is, a path from the root, so that --resume works from anywhere; None for no data."""
    if source is None:
        return None
    path = os.path.expanduser(source)
    return os.path.abspath(path) if source not in data.NAMED and os.path.exists(path) else source


def _absolute_spec(spec: str) -> str:
    return ":".join(os.path.abspath(p) if ".py:" in p else p for p in catalogue.parts(spec))
