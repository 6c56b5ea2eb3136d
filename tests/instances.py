"""An instance of every method in the laboratory's table, with settings that suit the small problems of the tests."""

import dataclasses

from optim.lab.catalogue import parse
from optim.lab.methods import INNER, METHODS, Choice
from optim.wrappers import Wrapper

SETTINGS = {  # where a class's own are not for a few parameters and twenty steps
    "adam": {"lr": 0.01},
    "weighted-search": {"lr": 0.01, "sigma": 0.5},
    "es": {"lr": 0.02},
    "newton": {"damping": 2.0},
    "acp": {"lr": 0.05, "alpha": 1.0, "every": 3},
    "ubp:acp": {"inner.lr": 0.05, "inner.alpha": 1.0, "inner.every": 4},
    "momentum": {"lr": 0.05},
    "nesterov": {"lr": 0.05},
    "schedule:momentum": {"inner.lr": 0.05, "warmup": 2},
    "decay:momentum": {"inner.lr": 0.05},
    "clip-update:momentum": {"inner.lr": 0.05, "limit": 0.1},
    "clip-gradient:momentum": {"inner.lr": 0.05, "limit": 0.5},
}
MORE = [  # beside each word that a setting may be, and each switch turned
    ("acp", {"rho": 0.9, "stats_every": 2}),
    ("ubp:acp", {"mode": "hessian"}),
    ("schedule:ubp:acp", {"inner.inner.every": 4}),
]


def full(name):
    """A name of the table as a specification: wrappers go around momentum."""
    return f"{name}:momentum" if issubclass(METHODS[name].kind, Wrapper) else name


SPECS = [*map(full, METHODS), *(f"ubp:{rule}" for rule in INNER)]


def method(spec, **changes):
    """The method of a specification with the settings of this file."""
    return parse(spec, {**SETTINGS.get(spec, {}), **changes})


def turned(name):
    """{setting: other values} of a method: the words that a setting may be, and false where true is the default."""
    entry, known = METHODS[name], SETTINGS.get(full(name), {})
    fields = dataclasses.fields(entry.kind) if dataclasses.is_dataclass(entry.kind) else ()
    found = {}
    for field in fields:
        words = entry.ranges.get(field.name)
        values = words.words if isinstance(words, Choice) else (False, True) if isinstance(field.default, bool) else ()
        taken = str(known.get(field.name, field.default)).lower()
        found[field.name] = [value for value in values if str(value).lower() != taken]
    return found


def variants():
    """{label: method}: every entry as it is, each of its words and switches, and more."""
    found = {spec: method(spec) for spec in SPECS}
    for name in METHODS:
        for setting, values in turned(name).items():
            found |= {f"{full(name)} {setting}={value}": method(full(name), **{setting: value}) for value in values}
    return found | {f"{spec} {changes}": method(spec, **changes) for spec, changes in MORE}
