"""Settings that each problem gives a method unless the user sets others: {problem: {method: {setting: value}}}.

First values by hand; `benchmarks/` holds the search, on the validation part with an equal number of trials, that
replaces them.
"""

TUNED = {
    "autoencoder": {
        "gd": {"lr": 0.1},
        "sgd": {"lr": 0.1},
        "momentum": {"lr": 0.02, "mu": 0.9},
        "nesterov": {"lr": 0.02, "mu": 0.9},
        "adam": {"lr": 1e-3},
        "centred": {"lr": 0.1},
        "acp": {"lr": 0.1, "eps": 0.3, "alpha": "max", "rho": 0.95},
        "ubp": {"inner.lr": 0.03, "mode": "gn"},
        "ubp:centred": {"inner.lr": 0.03, "mode": "gn"},
        "ubp:acp": {"inner.lr": 0.03, "inner.eps": 0.3, "inner.alpha": "max", "inner.rho": 0.95, "mode": "gn"},
    },
    "classifier": {
        "gd": {"lr": 0.3},
        "sgd": {"lr": 0.1},
        "momentum": {"lr": 0.02, "mu": 0.9},
        "nesterov": {"lr": 0.02, "mu": 0.9},
        "adam": {"lr": 1e-3},
        "centred": {"lr": 0.1},
        "acp": {"lr": 0.1, "eps": 0.3, "alpha": "max", "rho": 0.95},
        "ubp": {"inner.lr": 0.1, "mode": "gn"},
        "ubp:centred": {"inner.lr": 0.1, "mode": "gn"},
        "ubp:acp": {"inner.lr": 0.1, "inner.eps": 0.3, "inner.alpha": "max", "inner.rho": 0.95, "mode": "gn"},
    },
    "digits": {
        "gd": {"lr": 0.5},
        "sgd": {"lr": 0.3},
        "momentum": {"lr": 0.05, "mu": 0.9},
        "nesterov": {"lr": 0.05, "mu": 0.9},
        "adam": {"lr": 3e-3},
        "centred": {"lr": 0.3},
        "acp": {"lr": 0.1, "eps": 0.3, "alpha": "max", "rho": 0.95},
        "ubp": {"inner.lr": 0.3, "mode": "gn"},
        "ubp:centred": {"inner.lr": 0.3, "mode": "gn"},
        "ubp:acp": {"inner.lr": 0.1, "inner.eps": 0.3, "inner.alpha": "max", "inner.rho": 0.95, "mode": "gn"},
    },
}


def tuned(problem: str, spec: str) -> dict:
    """The settings that a problem gives a method; none for a method that was not tuned."""
    spec = "ubp" if spec == "ubp:gradient" else spec
    return dict(TUNED.get(problem, {}).get(spec, {}))
