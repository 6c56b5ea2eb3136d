"""Settings that each problem gives a method unless the user sets others: {problem: {method: {setting: value}}}.

Found by `benchmarks/tune_defaults.py`: for every method ten trials of the same number of epochs (autoencoder 16,
classifier and digits 10), the loss on the validation part deciding; every trial is in `benchmarks/tuned.jsonl`.
"""

TUNED = {
    "autoencoder": {
        "gd": {"lr": 0.0424},  # 59.88
        "sgd": {"lr": 0.0378},  # 42.49
        "momentum": {"lr": 0.0259, "mu": 0.567},  # 32.88
        "nesterov": {"lr": 0.0285, "mu": 0.58},  # 35.15
        "adam": {"lr": 0.00064, "eps": 3.58e-6},  # 22.86
        "centred": {"lr": 0.724},  # 17.01
        "acp": {"lr": 0.0875, "eps": 0.0014, "rho": 0.853, "alpha": "max"},  # 10.49
        "ubp": {"inner.lr": 0.0254},  # 37.29
        "ubp:centred": {"inner.lr": 0.234},  # 25.08
        "ubp:acp": {"inner.lr": 0.113, "inner.eps": 2.07, "inner.rho": 0.636, "inner.alpha": "max"},  # 30.43
    },
    "classifier": {
        "gd": {"lr": 0.293},  # 0.6087
        "sgd": {"lr": 0.334},  # 0.2997
        "momentum": {"lr": 0.186, "mu": 0.731},  # 0.3027
        "nesterov": {"lr": 0.171, "mu": 0.686},  # 0.2821
        "adam": {"lr": 0.00577, "eps": 1.63e-7},  # 0.2381
        "centred": {"lr": 0.106},  # 0.2837
        "acp": {"lr": 0.00674, "eps": 0.0851, "rho": 0.775, "alpha": "max"},  # 0.3407
        "ubp": {"inner.lr": 0.121},  # 0.2899
        "ubp:centred": {"inner.lr": 0.123},  # 0.2831
        "ubp:acp": {"inner.lr": 0.0144, "inner.eps": 0.0337, "inner.rho": 0.983, "inner.alpha": "max"},  # 0.3491
    },
    "digits": {
        "gd": {"lr": 0.293},  # 2.057
        "sgd": {"lr": 0.139},  # 0.4671
        "momentum": {"lr": 0.186, "mu": 0.731},  # 0.3943
        "nesterov": {"lr": 0.0189, "mu": 0.976},  # 0.3469
        "adam": {"lr": 0.0069, "eps": 0.000169},  # 0.3535
        "centred": {"lr": 0.431},  # 0.4216
        "acp": {"lr": 0.334, "eps": 0.00966, "rho": 0.565, "alpha": "max"},  # 0.395
        "ubp": {"inner.lr": 0.353},  # 0.4266
        "ubp:centred": {"inner.lr": 0.839},  # 0.4088
        "ubp:acp": {"inner.lr": 0.182, "inner.eps": 0.0663, "inner.rho": 0.526, "inner.alpha": "max"},  # 0.3742
    },
}


def tuned(problem: str, spec: str) -> dict:
    """The settings that a problem gives a method; none for a method that was not tuned."""
    spec = "ubp" if spec == "ubp:gradient" else spec
    return dict(TUNED.get(problem, {}).get(spec, {}))
