"""The runs of a thesis experiment: one JSON record each, in several processes, taken up again where they stopped.

    OUT/autoencoder-digits/acp/trial-0-0f3b2c1a.json       a trial: its settings, and the loss on the validation part
    OUT/autoencoder-digits/acp/final-1-9d2e7b60.json       a final run from seed 1
    OUT/fig6.2-digits-small-cost.json                      what an update costs, all methods measured in turns

A record's name holds a check sum of everything that was asked for; a run whose record is there is not run again, and
figures on the same problem and data share them.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minigrad import backend
from minigrad.archive import replacing

from . import machine, thesis
from .catalogue import settings_of
from .errors import LabError, unknown
from .problems import problem as problem_of
from .runs import Budget, Record, Run
from .thesis import CONTENDERS, EVERY, EXPERIMENTS, Experiment, Size

TRIAL_SEED = 0  # of θ and of the batches; final runs have the seeds 1, 2, …
FIGURES = 6  # digits of a recorded number
ROUNDS, REFRESHES = 12, 3  # of the measurement of costs, at least; rounds with a refresh
SECONDS, TURN = 8.0, 0.05  # that it takes at least; that a turn of the first method takes
POLL = 0.5  # seconds between two looks at a stop

clock = time.perf_counter
Told = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """One run, by everything that decides its outcome.

    Parameters
    ----------
    problem, source, data : str
        The problem, where its data is, and what the data set is called.
    fingerprint : int
        Of the training part.
    method : str
        A key of CONTENDERS.
    settings : dict
        What the search space names, with the gain.
    kind : {"trial", "final"}
    number : int
        Of the trial, or the seed of a final run.
    updates, points : int
    """

    problem: str
    source: str
    data: str
    fingerprint: int
    method: str
    settings: dict[str, float]
    kind: str
    number: int
    updates: int
    points: int

    def asked(self) -> dict[str, Any]:
        """What decides the outcome: where the data lies does not."""
        found = asdict(self)
        del found["source"]
        return found

    def path(self, out: Path) -> Path:
        mark = zlib.crc32(json.dumps(self.asked(), sort_keys=True).encode())
        name = f"{self.kind}-{self.number}-{mark:08x}.json"
        return out / f"{self.problem}-{self.data}" / self.method / name


def perform(job: Job, out: Path, stopped: Callable[[], bool] = lambda: False) -> dict | None:
    """Do one run and write its record; None when it was stopped, and then nothing is written."""
    contender, settings = CONTENDERS[job.method], dict(job.settings)
    gain = settings.pop("gain")
    heldout = "valid" if job.kind == "trial" else "test"
    seed = TRIAL_SEED if job.kind == "trial" else job.number
    task = thesis.task(job.problem, job.source, contender, gain, heldout, job.points)
    method = contender.make(**settings)
    record = Record(contender.label, settings_of(method))
    start = clock()
    with np.errstate(all="ignore"):  # an overflow shows as a loss that is not finite
        run = Run(record, method, task, task.initial(seed), seed, Budget("steps", job.updates))
        run.evaluate()
        while not run.ended:
            run.advance(stopped, lambda run: None)
            if stopped():
                return None
    found = {
        **job.asked(),
        "seed": seed,
        "all_settings": record.settings,
        "norm": contender.norm,
        "batch": task.batch,
        "diverged": record.diverged,
        "stopped": record.stopped,
        "lines": [_line(line, heldout) for line in record.lines],
        "seconds": _short(clock() - start),
        "threads": machine.threads(),
        "versions": machine.versions(),
    }
    write(job.path(out), found)
    return found


def _short(value: Any) -> Any:
    return float(f"{value:.{FIGURES}g}") if isinstance(value, float) else value


def _line(line: dict, heldout: str) -> dict:
    """A line of the record: rounded, without the method, and with the held-out part's own name."""
    named = {name.replace("test", heldout): _short(value) for name, value in line.items()}
    return {name: value for name, value in named.items() if name not in ("method", "seconds")}


def write(path: Path, found: dict) -> None:
    """Write a record; a reader meets the whole of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as stream:
        stream.write(json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n")


def read(path: Path) -> dict | None:
    """A record; None where there is none.

    Raises
    ------
    LabError
        It is damaged.
    """
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise LabError(f"{path} is damaged ({error}); remove it, and it will be run again") from error


# ------------------------------------------------------------------------------------------------------- many runs


def perform_all(jobs: list[Job], out: Path, processes: int, stopped: Callable[[], bool], told: Told) -> list[dict]:
    """The records of all jobs, in their order; those that are there are read, the others run.

    Parameters
    ----------
    processes : int
        1 runs them here; more, in processes of one BLAS thread each.
    stopped : callable
        Once it is true, the runs in progress are given up and `Interrupted` is raised.
    told : callable
        Called with a sentence after every run.
    """
    known = [read(job.path(out)) for job in jobs]
    missing = [job for job, record in zip(jobs, known) if record is None]
    done = len(jobs) - len(missing)
    if done:
        told(f"{done} of {len(jobs)} runs are on record")
    for record in _here(missing, out, stopped) if processes == 1 else _elsewhere(missing, out, processes, stopped):
        done += 1
        told(f"{done:4d}/{len(jobs)}  {outcome(record)}")
    return [read(job.path(out)) for job in jobs]


class Interrupted(LabError):
    """A stop was asked for; what is on record stays."""


def _here(jobs: list[Job], out: Path, stopped: Callable[[], bool]) -> Iterator[dict]:
    for job in jobs:
        record = perform(job, out, stopped)
        if record is None:
            raise Interrupted("stopped")
        yield record


def _elsewhere(jobs: list[Job], out: Path, processes: int, stopped: Callable[[], bool]) -> Iterator[dict]:
    context = multiprocessing.get_context("spawn")
    with _one_thread_each(), ProcessPoolExecutor(processes, context, initializer=_as_worker) as pool:
        try:
            pending = {pool.submit(perform, job, out) for job in jobs}
            while pending:
                ended, pending = wait(pending, timeout=POLL, return_when=FIRST_COMPLETED)
                for future in ended:
                    yield future.result()
                if pending and stopped():
                    raise Interrupted("stopped")
        except BaseException:
            for child in multiprocessing.active_children():
                child.terminate()
            pool.shutdown(cancel_futures=True)
            raise


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes that start in the block have a BLAS of one thread."""
    before = {name: os.environ.get(name) for name in machine.THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(before, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _as_worker() -> None:
    """A process leaves interrupts to its parent, and ends when that was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def outcome(record: dict) -> str:
    """A run in a line."""
    name = f"{record['method']:15} {record['kind']} {record['number']}"
    settings = ", ".join(f"{key} {value:g}" for key, value in record["settings"].items())
    if record["diverged"]:
        return f"{name}  diverged at update {record['lines'][-1]['step']}  ({settings})"
    last = record["lines"][-1]
    losses = ", ".join(f"{key.replace('_', ' ')} {last[key]:.4g}" for key in last if key.endswith("loss"))
    return f"{name}  {losses}  ({settings})  {record['seconds']:.0f} s"


# ------------------------------------------------------------------------------------------------------ the figure


@dataclass
class Result:
    """What is known of an experiment.

    Attributes
    ----------
    figure, data, heldout : str
    experiment : Experiment
    size : Size
    trials, finals : dict
        {contender: list of records}.
    best : dict
        {contender: settings}; a contender all of whose trials diverged is not in it, and has no final runs.
    costs : dict
        The record of `measure_costs`.
    examples : dict
        {"train", "measured", "test", "batch"}: numbers of examples.
    """

    figure: str
    data: str
    experiment: Experiment
    size: Size
    trials: dict[str, list[dict]]
    finals: dict[str, list[dict]]
    best: dict[str, dict[str, float]]
    costs: dict[str, Any]
    examples: dict[str, int]

    @property
    def stem(self) -> str:
        """The name of its files without an ending."""
        return f"{self.figure}-{self.data}-{self.size.name}"


def experiment(figure: str) -> Experiment:
    """An experiment by the figure's name."""
    if figure not in EXPERIMENTS:
        raise unknown("figure", figure, EXPERIMENTS)
    return EXPERIMENTS[figure]


def conduct(
    figure: str,
    size: Size,
    out: Path,
    *,
    source: str | None = None,
    processes: int = 1,
    stopped: Callable[[], bool] = lambda: False,
    told: Told = lambda line: None,
) -> Result:
    """All runs of a figure, from what is on record: trials, final runs with the best settings, costs.

    Parameters
    ----------
    figure : str
        A key of EXPERIMENTS.
    size : Size
    out : Path
    source : str, optional
        What `data.load` takes; the problem's own data otherwise.
    processes : int
    stopped, told : callable
        As for `perform_all`.

    Raises
    ------
    Interrupted
        A stop was asked for.
    """
    what = experiment(figure)
    source = source or problem_of(what.problem).data
    keys = size.contenders(what)
    sample = thesis.task(what.problem, source, CONTENDERS[keys[0]], 1.0, "test")
    facts = sample.facts()
    shared = {"problem": what.problem, "source": source, "data": sample.dataset.name}
    shared["fingerprint"] = facts["fingerprint"]
    told(f"{figure}: {what.title}, {size.name} version, on {sample.dataset.name}")

    def all_of(jobs: dict[str, list[Job]]) -> dict[str, list[dict]]:
        flat = [job for one in jobs.values() for job in one]
        records = iter(perform_all(flat, out, processes, stopped, told))
        return {key: [next(records) for _ in one] for key, one in jobs.items()}

    trials = all_of({key: _trials(key, size, sample.problem.activation, shared) for key in keys})
    best = {key: found for key in keys if (found := best_of(trials[key])) is not None}
    finals = all_of({key: _finals(key, size, settings, shared) for key, settings in best.items()})
    examples = {"train": facts["train"], "measured": len(sample.measured[0]), "test": facts["test"]}
    examples["batch"] = facts["batch"]
    result = Result(figure, sample.dataset.name, what, size, trials, finals, best, {}, examples)
    result.costs = costs_on_record(result, source, out, told)
    return result


def _trials(key: str, size: Size, activation: str, shared: dict) -> list[Job]:
    found = thesis.points(CONTENDERS[key], activation, size.trials)
    return [
        Job(**shared, method=key, settings=point, kind="trial", number=k, updates=size.trial_updates, points=1)
        for k, point in enumerate(found)
    ]


def _finals(key: str, size: Size, settings: dict, shared: dict) -> list[Job]:
    rest = {"method": key, "settings": settings, "updates": size.updates, "points": size.points}
    return [Job(**shared, **rest, kind="final", number=seed + 1) for seed in range(size.seeds)]


def best_of(trials: list[dict]) -> dict[str, float] | None:
    """The settings of the trial with the least loss on the validation part; None where all diverged."""
    losses = [math.inf if trial["diverged"] else trial["lines"][-1]["valid_loss"] for trial in trials]
    least = min(losses)
    return trials[losses.index(least)]["settings"] if math.isfinite(least) else None


# ----------------------------------------------------------------------------------------------- cost of an update


def costs_on_record(result: Result, source: str, out: Path, told: Told) -> dict[str, Any]:
    """The costs from their record, measured where there is none."""
    path = out / f"{result.stem}-cost.json"
    keys = result.size.contenders(result.experiment)
    found = read(path)
    if found is None or list(found["contenders"]) != keys:
        told("measuring the cost of an update, all methods in turns; keep the machine quiet")
        found = measure_costs(result.experiment.problem, source, keys)
        write(path, found)
    return found


def measure_costs(problem: str, source: str, keys: list[str]) -> dict[str, Any]:
    """Seconds of an update of every method, and the ratio to the first one's, from turns in one process.

    An update with a refresh, one in EVERY, is timed apart: the cost is (refresh + (EVERY − 1) · other) / EVERY. One
    update in front of every turn is not timed. Where the BLAS has one thread it is the processor's time of this
    process that counts, which other processes disturb less.

    Returns
    -------
    dict
        {"contenders": {key: {"seconds", "ratio": [quartile, median, quartile]}}, and what it was measured on}; the
        ratio is to SGD where SGD takes part, otherwise to the first.
    """
    times: dict[str, list[float]] = {key: [] for key in keys}
    refreshes: dict[str, list[float]] = {key: [] for key in keys}
    load = os.getloadavg()[0]
    with np.errstate(all="ignore"):
        steppers = {key: _stepper(problem, source, key) for key in keys}
        count = min(EVERY - 2, max(3, math.ceil(TURN / steppers[keys[0]](3))))
        end, turn = clock() + SECONDS, 0
        while turn < ROUNDS or clock() < end:
            shift = turn % len(keys)
            for key in keys[shift:] + keys[:shift]:
                if turn < REFRESHES:
                    refreshes[key].append(steppers[key](1, refresh=True))
                steppers[key](1)
                times[key].append(steppers[key](count))
            turn += 1
    whole = {}
    for key in keys:
        extra = (float(np.median(refreshes[key])) - float(np.median(times[key]))) / EVERY
        whole[key] = np.asarray(times[key]) + max(extra, 0.0)
    base = whole["sgd" if "sgd" in whole else keys[0]]
    found = {
        key: {
            "seconds": _short(float(np.median(each))),
            "refresh": _short(float(np.median(refreshes[key]))),
            "ratio": [_short(q) for q in np.quantile(each / base, (0.25, 0.5, 0.75)).tolist()],
        }
        for key, each in whole.items()
    }
    facts = {"every": EVERY, "rounds": turn, "load_before": _short(load), **machine.facts()}
    return {"contenders": found, **facts}


def _stepper(problem: str, source: str, key: str) -> Callable[..., float]:
    """Seconds of an update: f(count, refresh=False). Its steps are too small to lead anywhere."""
    contender = CONTENDERS[key]
    settings = {name: found.low if name == "lr" else found.high for name, found in contender.searched.items()}
    task = thesis.task(problem, source, contender, 4.0, "test")
    params = task.initial(0)
    method, objectives = contender.make(**settings), task.objectives(params, False, 0)
    state = method.init(params)
    now = time.process_time if machine.threads() == 1 else clock

    def step(count: int, refresh: bool = False) -> float:
        state["t"] = 0 if refresh else 1
        batches = [objectives.at(state["t"] + k) for k in range(count)]
        start = now()
        for f in batches:
            method.step(f, state)
        backend.wait(params.vector)
        return (now() - start) / count

    step(1, refresh=True)
    return step
