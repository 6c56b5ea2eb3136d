"""The thesis's experiments [T-5.4, T-6.5]: what is compared, on what, from which search space, by which protocol.

Every method is tuned alike: the same number of trials, at the same points of its search space, each of the same number
of updates; the loss on the validation part decides, and the test part is never looked at. Then its best settings are
run from several seeds. The inverses of all second order methods are renewed every 100 updates from the batch of that
update, as the thesis has it. `thesis_runs.py` does the work, `thesis_figure.py` draws it, and `thesis_signals.py` is
the diagnostic of T-5.5.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import optim
from minigrad import Objective, backend, data, nn
from minigrad.params import Params
from optim import Method

from .methods import METHODS, Range, hypercube
from .problems import problem
from .tasks import NetworkTask, Pair, Shuffled

EVERY = 100  # updates between two refreshes of statistics and inverses [T-6.5.2]
GAINS = {"sigmoid": Range(2.0, 64.0), "relu": Range(1.0, 8.0), "tanh": Range(0.5, 8.0)}  # α of T-2.4.2
MEASURED = 10_000  # training examples, at most, on which a curve's training loss is measured


@dataclass(frozen=True)
class Contender:
    """One method of a comparison.

    Parameters
    ----------
    label : str
    make : callable
        The method of the settings that are searched.
    searched : dict
        {setting: Range}; the gain α of the initial weights is searched besides.
    norm : str, optional
        The normalisation that the network gets.
    """

    label: str
    make: Callable[..., Method]
    searched: Mapping[str, Range]
    norm: str | None = None


def _ranges(name: str, *settings: str) -> dict[str, Range]:
    return {setting: METHODS[name].ranges[setting] for setting in settings}


def _sgd(label: str, norm: str | None = None) -> Contender:
    return Contender(label, optim.SGD, _ranges("sgd", "lr"), norm)


def _acp(label: str, alpha: float | str) -> Contender:
    return Contender(label, functools.partial(optim.ACP, alpha=alpha, every=EVERY), _ranges("acp", "lr", "eps"))


def _kfac(curvature: str) -> Contender:
    """K-FAC whose factors are those of one batch, as old as its inverses."""
    make = functools.partial(optim.KFAC, curvature=curvature, rho=0.0, every=EVERY, stats_every=EVERY)
    return Contender(f"K-FAC ({curvature})", make, _ranges("kfac", "lr", "damping"))


def _ubp(lr: float) -> Method:
    return optim.UBP(optim.Gradient(lr=lr), mode="gn")


CONTENDERS = {
    "sgd": _sgd("SGD"),
    "ubp": Contender("UBP (gn)", _ubp, _ranges("sgd", "lr")),
    "centred": Contender("centred gradient", optim.Centred, _ranges("centred", "lr")),
    "mean-bn": _sgd("mean-only BN + SGD", norm="mean"),
    "bn": _sgd("BN + SGD", norm="batch"),
    "acp": _acp("ACP (α fixed)", 1.0),  # only λ/α and ε/α matter then, and both are searched
    "acp-max": _acp("ACP (α = max)", "max"),
    "prong": Contender("PRONG", functools.partial(optim.PRONG, every=EVERY), _ranges("prong", "lr", "eps")),
    "kfac-fisher": _kfac("fisher"),
    "kfac-mc": _kfac("mc"),
    "kfac-empirical": _kfac("empirical"),
}


@dataclass(frozen=True)
class Experiment:
    """One figure of the thesis.

    Parameters
    ----------
    title, source : str
    problem : str
    contenders : tuple of str
    thesis : dict
        {contender: (training loss, best test loss, cost of an update ÷ SGD's)}, as read off the thesis; None where
        it does not say.
    order : str
        How the thesis ranks them.
    only_full : tuple of str
        Contenders that the small version leaves out, for the time that they take.
    """

    title: str
    source: str
    problem: str
    contenders: tuple[str, ...]
    thesis: Mapping[str, tuple[float | None, float | None, float | None]] = field(default_factory=dict)
    order: str = ""
    only_full: tuple[str, ...] = ()


AUTOENCODER = {  # after 3·10⁵ updates on 60,000 digits
    "sgd": (2.12, 4.46, 1.0),
    "centred": (2.42, 3.41, 1.2),
    "mean-bn": (1.53, 3.33, 1.4),
    "bn": (1.83, 3.71, 2.0),
    "acp": (1.03, 3.13, 2.0),
    "acp-max": (1.04, 3.04, 2.5),
    "prong": (1.09, 3.14, 8.8),
    "kfac-fisher": (0.92, 3.36, 4.6),
}
EXPERIMENTS = {
    "fig5.1": Experiment(
        "updated backpropagation against SGD on the autoencoder",
        "T-5.4, figure 5.1",
        "autoencoder",
        ("sgd", "ubp"),
        {"sgd": (23.1, None, 1.0), "ubp": (18.2, None, 10.0)},
        "UBP before SGD by updates, at ten times the cost of one",
    ),
    "fig6.1": Experiment(
        "centring the layers' inputs, on the autoencoder",
        "T-6.5.1, figure 6.1",
        "autoencoder",
        ("sgd", "mean-bn", "centred", "acp"),
        AUTOENCODER,
        "ACP by a large margin, mean-only BN, SGD, centred gradient",
    ),
    "fig6.2": Experiment(
        "second order methods on the autoencoder",
        "T-6.5.2, figure 6.2",
        "autoencoder",
        ("acp", "acp-max", "prong", "kfac-fisher", "kfac-mc", "bn", "sgd"),
        AUTOENCODER,
        "K-FAC, ACP (α fixed), ACP (α = max), PRONG, BN, SGD; at equal time ACP is level with K-FAC",
        only_full=("kfac-fisher",),
    ),
    "fig6.3": Experiment(
        "second order methods on a classifier of eight hidden layers",
        "T-6.5.2, figure 6.3",
        "deep-classifier",
        ("acp", "acp-max", "prong", "kfac-empirical", "bn", "sgd", "kfac-fisher"),
        order="K-FAC (fisher) first, K-FAC (empirical) clearly behind it, natural nets (PRONG) slowest",
    ),
}


@dataclass(frozen=True)
class Size:
    """How much of everything.

    Parameters
    ----------
    name : str
    trials, trial_updates : int
        Of every method's tuning.
    updates, seeds : int
        Of every method's final runs.
    points : int
        Evaluations of a final run after the first.
    """

    name: str
    trials: int
    trial_updates: int
    updates: int
    seeds: int
    points: int = 20

    def contenders(self, experiment: Experiment) -> list[str]:
        """Who takes part."""
        left_out = () if self.name == "full" else experiment.only_full
        return [key for key in experiment.contenders if key not in left_out]


SIZES = {
    "small": Size("small", trials=8, trial_updates=150, updates=500, seeds=2),
    "full": Size("full", trials=8, trial_updates=300, updates=1500, seeds=3),
}


# -------------------------------------------------------------------------------------------------- search space


def points(contender: Contender, activation: str, trials: int) -> list[dict[str, float]]:
    """Settings to try: a Latin hypercube, whose points are the same for every method on the axes that they share.

    Returns
    -------
    list of dict
        {setting: value, "gain": α}.
    """
    axes = {"gain": GAINS[activation], **contender.searched}
    return hypercube(np.random.default_rng(0), axes, trials)


# -------------------------------------------------------------------------------------------------------- the task


class InTraining(Shuffled):
    """Batches seen in train mode: normalising layers take the statistics of the batch."""

    def at(self, step: int) -> Objective:
        return Objective(self.task.net, self.task.problem.loss, self.params, *self.batches.at(step), train=True)


@dataclass(frozen=True)
class ThesisTask(NetworkTask):
    """A problem with the gain of its initial weights and the number of evaluations as settings.

    Parameters
    ----------
    gain : float
        α of the initial weights, Var = α/(n_in + n_out) [T-2.4.2].
    measured : tuple (x, y)
        The first MEASURED examples of the training part, on which the training loss is measured.
    points : int
        Evaluations after the one at step 0.
    """

    gain: float = 2.0
    measured: Pair = ()
    points: int = 20

    def initial(self, seed: int) -> Params:
        x = self.train[0]
        return self.net.init(rng=seed, dtype=x.dtype, device=backend.device_of(x), alpha=self.gain)

    def objectives(self, params: Params, full_batch: bool, seed: int) -> InTraining:
        return InTraining(self, params, seed)

    def evaluate(self, params: Params) -> dict[str, float]:
        train, train_error = self.measure(params, *self.measured)
        test, test_error = self.measure(params, *self.heldout)
        return dict(zip(self.measures, (train, test, train_error, test_error)))


@functools.lru_cache(maxsize=2)
def _prepared(name: str, source: str, heldout: str) -> NetworkTask:
    """A problem's task on a data set; read once in a process."""
    return problem(name).prepare(_loaded(source), heldout=heldout)


@functools.lru_cache(maxsize=1)
def _loaded(source: str) -> Any:
    return data.load(source)


def task(name: str, source: str, contender: Contender, gain: float, heldout: str, points: int = 20) -> ThesisTask:
    """The task of one run.

    Parameters
    ----------
    name, source : str
        The problem and the data set.
    gain : float
        α of the initial weights.
    heldout : {"valid", "test"}
    points : int
        Evaluations after the first.
    """
    base = _prepared(name, source, heldout)
    p, x = base.problem, base.train[0]
    outputs = base.train[1].shape[1]
    net = nn.mlp([x.shape[1], *p.hidden, outputs], p.activation, p.linear, p.output, norm=contender.norm)
    x, y = (part[:MEASURED] for part in base.train)
    measured = (x, x if p.reconstructs else y)
    return ThesisTask(p, net, base.train, base.heldout, base.dataset, gain, measured, points)
