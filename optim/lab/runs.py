"""Training: one Run a method, all of a comparison from the same θ and on the same batches, and fair clocks.

The methods of a comparison take turns, from one evaluation point to the next, so that what slows the machine for a
while slows them all. The training clock counts steps alone: evaluation, logging and checkpoints stand outside it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minigrad import backend
from minigrad.data import Dataset
from minigrad.params import Params
from optim import Method, Stopped

from .catalogue import settings_of
from .errors import LabError, UsageError
from .folder import Folder
from .problems import Problem, problem
from .tasks import Function, Task

TICK = 0.2  # seconds between two looks at the progress
UNITS = ("steps", "epochs", "seconds")
OF_NETWORK = ": Objective(net, loss, params, x, y)"  # what a sentence says last that asks for a network

clock = time.perf_counter


@dataclass(frozen=True)
class Budget:
    """How long every method trains: a number of steps, of epochs, or of seconds on the training clock."""

    unit: str
    amount: float

    def __post_init__(self):
        if self.unit not in UNITS:
            raise UsageError(f"a budget counts {', '.join(UNITS)}, not {self.unit!r}")
        if not 0 < self.amount < math.inf:
            raise UsageError(f"the number of {self.unit} must be positive, not {self.amount:g}")

    def marks(self, epoch: int, points: int) -> list[float]:
        """Where to evaluate, in steps or in seconds; `epoch` is the number of steps in one."""
        if self.unit == "seconds":
            return [self.amount * k / points for k in range(points + 1)]
        steps = max(1, round(self.amount * (epoch if self.unit == "epochs" else 1)))
        return sorted({round(steps * k / points) for k in range(points + 1)})

    def __str__(self) -> str:
        return f"{self.amount:g} {self.unit}"


@dataclass
class Record:
    """What became of one method.

    Attributes
    ----------
    method : str
        Its label.
    settings : dict
    lines : list of dict
        The lines of metrics.jsonl.
    diverged : str or None
        Why it was lost at its last line.
    stopped : str or None
        Why it ended early at its last line, at a point as good as any before.
    """

    method: str
    settings: dict[str, Any]
    lines: list[dict] = field(default_factory=list)
    diverged: str | None = None
    stopped: str | None = None

    @property
    def last(self) -> dict:
        """The last line with a finite loss."""
        good = [line for line in self.lines if not line.get("diverged")]
        return good[-1] if good else {}


class Run:
    """One method on one task.

    Parameters
    ----------
    record : Record
    method : Method
    task : Task
    params : Params
        Where it starts; moved in place.
    seed : int
        The order of the batches and the random numbers of the method come from it.
    budget : Budget
    """

    def __init__(self, record: Record, method: Method, task: Task, params: Params, seed: int, budget: Budget):
        self.record, self.method, self.task, self.params, self.seed = record, method, task, params, seed
        with self._refusals():
            self.state = method.init(params, rng=seed)
        self.step = 0
        self.seconds = 0.0
        self.objectives = self._objectives(params)
        self.by_time = budget.unit == "seconds"
        self.marks = budget.marks(len(self.objectives), task.points)
        self._good = self.snapshot()

    @property
    def position(self) -> float:
        """How far it is, in the unit of the marks."""
        return self.seconds if self.by_time else self.step

    @property
    def share(self) -> float:
        """How far it is, from 0 to 1."""
        early = self.record.diverged or self.record.stopped
        return 1.0 if early else min(1.0, self.position / self.marks[-1])

    @property
    def ended(self) -> bool:
        return self.share >= 1.0

    def _objectives(self, params: Params) -> Any:
        return self.task.objectives(params, self.method.full_batch, self.seed)

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """What a method says against a problem, as a UsageError with the method's name."""
        try:
            yield
        except (backend.FactorisationError, Stopped):
            pass  # no refusal: the run itself will meet it, and end there
        except (ValueError, TypeError) as error:
            told = self._told(error)
            if self.task.batch is None and told.endswith(OF_NETWORK):
                told = f"{told.removesuffix(OF_NETWORK)}, and {self.task.problem.name} is a function without one"
            raise UsageError(f"{self.record.method}: {told}") from error

    def _told(self, error: Exception) -> str:
        """Its sentence without the name of the class; the label stands before it."""
        return (backend.explained(error) or str(error)).removeprefix(f"{type(self.method).__name__}: ")

    def warm_up(self) -> None:
        """One step on a copy, thrown away, so that no clock counts imports, first buffers and compiled kernels.

        Raises
        ------
        UsageError
            The method refuses the problem.
        """
        params = self.params.copy()
        with self._refusals():
            self.method.step(self._objectives(params).at(0), self.method.init(params, rng=0))

    def advance(self, stopped: Callable[[], bool], tick: Callable[[Run], None]) -> dict:
        """Train to the next evaluation point, or until `stopped`, and evaluate; the line for metrics.jsonl."""
        mark = next(m for m in self.marks if m > self.position)
        try:
            self._train(mark, stopped, tick)
        except backend.FactorisationError as error:
            return self._diverge(str(error))
        except Stopped as error:
            return self.evaluate(self._told(error))
        return self.evaluate()

    def _train(self, mark: float, stopped: Callable[[], bool], tick: Callable[[Run], None]) -> None:
        last, allowed = (math.inf, mark - self.seconds) if self.by_time else (mark, math.inf)
        start, ticked = clock(), TICK
        try:
            while self.step < last:
                self.method.step(self.objectives.at(self.step), self.state)
                self.step += 1
                elapsed = clock() - start
                if elapsed >= allowed or stopped():
                    break
                if elapsed >= ticked:
                    tick(self)
                    start = clock() - elapsed  # what the tick took is not training
                    ticked = elapsed + TICK
        finally:
            backend.wait(self.params.vector)
            self.seconds += clock() - start

    def evaluate(self, stopped: str | None = None) -> dict:
        """The line of this point; a loss that is not finite ends the run at its last good point.

        Parameters
        ----------
        stopped : str, optional
            Why the method cannot go on from here, which ends the run at this point.
        """
        found = self.task.evaluate(self.params)
        if not all(map(math.isfinite, found.values())):
            return self._diverge("its loss is not finite")
        self._good = self.snapshot()
        if found["train_loss"] < self.task.floor:
            stopped = f"R is below {self.task.floor:g}, and {self.task.problem.name} has no minimum"
        self.record.stopped = stopped
        return self._log(found, **({"stopped": True} if stopped else {}))

    def _diverge(self, reason: str) -> dict:
        self.record.diverged = reason
        line = self._log(dict.fromkeys(self.task.measures), diverged=True)
        self.restore(self._good)
        return line

    def _log(self, found: dict, **more: bool) -> dict:
        line = {"method": self.record.method, "step": self.step, "seconds": self.seconds, **found, **more}
        self.record.lines.append(line)
        return line

    # ----------------------------------------------------------------------------------------------- checkpoints

    def snapshot(self) -> dict[str, Any]:
        """θ, buffers, state, step and seconds as a flat dictionary of their own arrays and numbers."""
        arrays = {"theta": self.params.vector}
        arrays |= {f"buffers/{k}": v for k, v in self.params.buffers.items()}
        arrays |= {f"state/{k}": v for k, v in self.state.items()}
        kept = {k: v.copy(order="K") if _is_array(v) else v for k, v in arrays.items()}
        return {"method": self.record.method, "step": self.step, "seconds": self.seconds, **kept}

    def checkpoint(self) -> dict[str, Any]:
        """The last good snapshot with the names of θ's windows, for METHOD.npz."""
        names = " ".join(self.params)
        return {**self._good, "names": names, "diverged": self.record.diverged, "stopped": self.record.stopped}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from a snapshot or a checkpoint."""
        device = self.params.device
        arrays = {k: backend.asarray(v, device) if _is_array(v) else v for k, v in saved.items()}
        self.params.vector = arrays["theta"]
        self.params.buffers = {k.removeprefix("buffers/"): v for k, v in arrays.items() if k.startswith("buffers/")}
        self.state = {k.removeprefix("state/"): v for k, v in arrays.items() if k.startswith("state/")}
        self.step, self.seconds = saved["step"], saved["seconds"]
        self.objectives = self._objectives(self.params)  # a method may have left something on the old ones

    def resume(self, saved: Mapping[str, Any], lines: list[dict]) -> None:
        """Go on from a checkpoint, with the lines that were logged up to it."""
        theta = saved.get("theta")
        if saved.get("names") != " ".join(self.params) or theta is None or theta.shape != self.params.vector.shape:
            raise LabError(f"the checkpoint of {self.record.method} belongs to another network; train anew with --out")
        self.restore(saved)
        self._good = self.snapshot()
        self.record.diverged, self.record.stopped = saved["diverged"], saved.get("stopped")
        self.record.lines = [e for e in lines if e["step"] <= self.step or (e.get("diverged") and saved["diverged"])]


def _is_array(value: Any) -> bool:
    """Whether a value of a state is an array of either device, and no number."""
    return hasattr(value, "ndim") and not isinstance(value, np.generic)


class Comparison:
    """Several methods on one task, in turns.

    Parameters
    ----------
    task : Task
    methods : dict
        {label: Method}.
    budget : Budget
    seed : int
    folder : Folder, optional
        Where lines and checkpoints go; nothing is written without one.
    """

    def __init__(
        self, task: Task, methods: Mapping[str, Method], budget: Budget, seed: int = 0, folder: Folder | None = None
    ):
        if budget.unit == "epochs" and task.batch is None:
            raise UsageError(f"{task.problem.name} has no examples, hence no epochs; give --steps or --seconds")
        first = task.initial(seed)
        self.folder = folder
        self.runs = [
            Run(Record(label, settings_of(method)), method, task, first.copy(), seed, budget)
            for label, method in methods.items()
        ]
        with np.errstate(all="ignore"):
            for run in self.runs:
                run.warm_up()

    @property
    def records(self) -> list[Record]:
        return [run.record for run in self.runs]

    @property
    def share(self) -> float:
        """How far the whole is, from 0 to 1."""
        return sum(run.share for run in self.runs) / len(self.runs)

    def resume(self) -> None:
        """Take every run on from its checkpoint, and cut from metrics.jsonl what came after it."""
        lines = self.folder.lines()
        for run in self.runs:
            saved = self.folder.checkpoint(run.record.method)
            if saved is not None:
                run.resume(saved, [line for line in lines if line["method"] == run.record.method])
        self.folder.rewrite([line for run in self.runs for line in run.record.lines])

    def train(
        self,
        stopped: Callable[[], bool] = lambda: False,
        tick: Callable[[Run], None] = lambda run: None,
        logged: Callable[[Run], None] = lambda run: None,
    ) -> bool:
        """Train every method to the end of its budget.

        Parameters
        ----------
        stopped : callable
            Asked after every step; once it is true, the run in progress is evaluated and saved, and nothing follows.
        tick : callable
            Called with the run in progress a few times a second.
        logged : callable
            Called with a run after each of its evaluations.

        Returns
        -------
        bool
            Whether it came to the end.
        """
        with np.errstate(all="ignore"):  # an overflow shows as a loss that is not finite
            for run in self.runs:
                if not run.record.lines:
                    self._keep(run, run.evaluate(), logged)
            while going := [run for run in self.runs if not run.ended]:
                for run in going:
                    if stopped():
                        return False
                    self._keep(run, run.advance(stopped, tick), logged)
        return True

    def _keep(self, run: Run, line: dict, logged: Callable[[Run], None]) -> None:
        if self.folder is not None:
            self.folder.log(line)  # before the checkpoint: a resumed run drops lines, and cannot make missing ones
            self.folder.save(run.record.method, run.checkpoint())
        logged(run)


def compare(
    task: Problem | Function | str,
    methods: Mapping[str, Method],
    budget: Budget,
    *,
    seed: int = 0,
    source: str | Dataset | None = None,
    device: str = "cpu",
    dtype: str | None = None,
    heldout: str = "test",
) -> list[Record]:
    """Train methods on a problem, from one θ and on the same batches, without writing anything.

    Parameters
    ----------
    task : Problem, Function or str
        A problem, a test function, or the name of one.
    methods : dict
        {label: Method}.
    budget : Budget
    seed : int
    source : str or Dataset, optional
        Data set, or what `data.load` takes; by default the problem's own. Functions take none.
    device, dtype, heldout
        As in `Problem.prepare`; by default float32 for networks and float64 for functions.

    Returns
    -------
    list of Record
        In the order of the methods.

    Examples
    --------
    >>> import optim
    >>> adam, = compare("digits", {"adam": optim.Adam(lr=3e-3)}, Budget("steps", 40))
    >>> adam.last["step"], adam.last["train_loss"] < adam.lines[0]["train_loss"]
    (40, True)
    """
    chosen = problem(task) if isinstance(task, str) else task
    comparison = Comparison(chosen.open(source, device, dtype, heldout), methods, budget, seed)
    comparison.train()
    return comparison.records
