"""Settings that each problem gives a method unless the user sets others: {problem: {method: {setting: value}}}.

Found by `benchmarks/tune_defaults.py`: for every method ten trials of the same number of epochs (autoencoder 16,
classifier and digits 10), the best three again on two more seeds, the mean loss on the validation part deciding. It
stands behind each line; every trial is in `benchmarks/tuned.jsonl`.
"""

from optim.wrappers import Wrapper

from .methods import METHODS

TUNED = {
    "autoencoder": {
        "gd": {"lr": 0.0424},  # 59.9
        "sgd": {"lr": 0.0378},  # 42.04
        "momentum": {"lr": 0.0259, "mu": 0.567},  # 32.63
        "nesterov": {"lr": 0.0285, "mu": 0.58},  # 35.19
        "adam": {"lr": 0.00064, "eps": 3.58e-6},  # 22.85
        "rmsprop": {"lr": 0.000705, "rho": 0.839, "eps": 1.36e-06},  # 29.21
        "adagrad": {"lr": 0.00458, "eps": 9.89e-06},  # 29.88
        "centred": {"lr": 0.724},  # 17.78
        "acp": {"lr": 0.0875, "eps": 0.0014, "rho": 0.853, "alpha": "max"},  # 11.69
        "ubp": {"inner.lr": 0.0254},  # 35.98
        "ubp:centred": {"inner.lr": 0.234},  # 24.52
        "ubp:acp": {"inner.lr": 0.113, "inner.eps": 2.07, "inner.rho": 0.636, "inner.alpha": "max"},  # 29.12
    },
    "classifier": {
        "gd": {"lr": 0.293},  # 0.5841
        "sgd": {"lr": 0.11},  # 0.4559
        "momentum": {"lr": 0.0356, "mu": 0.918},  # 0.318
        "nesterov": {"lr": 0.0285, "mu": 0.58},  # 0.329
        "adam": {"lr": 0.00577, "eps": 1.63e-7},  # 0.2558
        "adagrad": {"lr": 0.0169, "eps": 4.09e-09},  # 0.3619
        "rmsprop": {"lr": 0.00519, "rho": 0.599, "eps": 0.000947},  # 0.3391
        "adadelta": {"lr": 0.962, "rho": 0.862, "eps": 8.13e-08},  # 0.4119
        "tonga": {"lr": 0.0573, "damping": 0.25, "rho": 0.826},  # 0.2948
        "kfac": {"lr": 0.00583, "damping": 0.00109, "rho": 0.513},  # 0.2579
        "ekfac": {"lr": 0.00152, "damping": 0.0104, "rho": 0.883},  # 0.2914
        "prong": {"lr": 0.152, "eps": 2.25},  # 0.3238
        "centred": {"lr": 0.106},  # 0.292
        "acp": {"lr": 0.00941, "eps": 0.0317, "rho": 0.507, "alpha": "max"},  # 0.3375
        "ubp": {"inner.lr": 0.121},  # 0.3375
        "ubp:centred": {"inner.lr": 0.123},  # 0.2911
        "ubp:acp": {"inner.lr": 0.0144, "inner.eps": 0.0337, "inner.rho": 0.983, "inner.alpha": "max"},  # 0.3483
    },
    "deep-classifier": {},  # `minigrad thesis fig6.3` searches for every call anew
    "digits": {
        "gd": {"lr": 0.293},  # 2.021
        "sgd": {"lr": 0.139},  # 0.5139
        "momentum": {"lr": 0.0356, "mu": 0.918},  # 0.3946
        "nesterov": {"lr": 0.0189, "mu": 0.976},  # 0.3569
        "adam": {"lr": 0.0069, "eps": 0.000169},  # 0.3359
        "adagrad": {"lr": 0.2, "eps": 0.000218},  # 0.3795
        "rmsprop": {"lr": 0.00387, "rho": 0.559, "eps": 4.72e-07},  # 0.3962
        "adadelta": {"lr": 1.42, "rho": 0.892, "eps": 5.97e-07},  # 0.4101
        "tonga": {"lr": 0.0573, "damping": 0.25, "rho": 0.826},  # 0.4455
        "kfac": {"lr": 0.00583, "damping": 0.00109, "rho": 0.513},  # 0.3157
        "ekfac": {"lr": 0.0226, "damping": 0.0548, "rho": 0.545},  # 0.3889
        "prong": {"lr": 0.0357, "eps": 0.00642},  # 0.3435
        "centred": {"lr": 0.724},  # 0.4362
        "acp": {"lr": 0.0875, "eps": 0.0014, "rho": 0.853, "alpha": "max"},  # 0.4089
        "ubp": {"inner.lr": 0.121},  # 0.5053
        "ubp:centred": {"inner.lr": 0.839},  # 0.4002
        "ubp:acp": {"inner.lr": 0.182, "inner.eps": 0.0663, "inner.rho": 0.526, "inner.alpha": "max"},  # 0.3853
    },
}


def tuned(problem: str, spec: str) -> dict:
    """The settings that a problem gives a method, also inside a wrapper; none for a method that was not tuned."""
    head, _, rest = spec.partition(":")
    if rest and head in METHODS and issubclass(METHODS[head].kind, Wrapper):
        return {f"inner.{name}": value for name, value in tuned(problem, rest).items()}
    spec = "ubp" if spec == "ubp:gradient" else spec
    return dict(TUNED.get(problem, {}).get(spec, {}))
