"""Specifications and settings: what is read, and what is refused with which words."""

import pytest
from instances import SPECS

import optim
from optim.lab.catalogue import assign, labels, parse, settings_of
from optim.lab.errors import UsageError
from optim.lab.methods import INNER, METHODS, Choice
from optim.lab.problems import PROBLEMS
from optim.lab.tuned import TUNED, tuned


@pytest.mark.parametrize(
    "spec, settings, expected",
    [
        ("sgd", {"lr": ".25"}, optim.SGD(lr=0.25)),
        ("momentum", {"lr": 0.1, "mu": "0"}, optim.Momentum(lr=0.1, mu=0.0)),
        ("acp", {"alpha": "max", "every": "7"}, optim.ACP(alpha="max", every=7)),
        ("acp", {"alpha": "2", "rest_lr": "none"}, optim.ACP(alpha=2.0, rest_lr=None)),
        ("acp", {"rest_lr": "0.5"}, optim.ACP(rest_lr=0.5)),
        ("ubp", {"mode": "mc", "inner.lr": ".3"}, optim.UBP(optim.Gradient(lr=0.3), mode="mc")),
        ("ubp:gradient", {}, optim.UBP(optim.Gradient())),
        ("ubp:acp", {"inner.eps": "1"}, optim.UBP(optim.ACP(eps=1.0))),
    ],
)
def test_parse(spec, settings, expected):
    found = parse(spec, settings)
    assert found == expected and type(found) is type(expected)


def test_values_have_the_type_of_their_setting():
    method = parse("acp", {"lr": "1", "every": "5"})
    assert type(method.lr) is float and type(method.every) is int


@pytest.mark.parametrize("spec", SPECS)
def test_settings_rebuild_the_method(spec):
    method = parse(spec, {k: v for k, v in tuned("autoencoder", spec).items()})
    assert parse(spec, settings_of(method)) == method


@pytest.mark.parametrize(
    "spec, settings, words",
    [
        ("sdg", {}, "unknown method 'sdg'; there are gd, sgd,"),
        ("sdg", {}, "did you mean 'sgd'?"),
        ("Adam", {}, "did you mean 'adam'?"),
        ("ubp:acpp", {}, "unknown inner rule 'acpp'; there are gradient, centred,"),
        ("ubp:acpp", {}, "did you mean 'acp'?"),
        ("ubp:adam", {}, "adam is no layer rule, so UBP cannot go over it; the rules are gradient, centred,"),
        ("ubp:ubp", {}, "ubp is no layer rule"),
        ("adam:acp", {}, "adam takes no inner rule"),
        ("ubp:acp:acp", {}, "acp takes no inner rule, so 'ubp:acp:acp' is not a method"),
        ("gradient", {}, "by itself the method is called 'sgd'"),
        ("momentum", {"muu": "1"}, "momentum has no setting 'muu'; there are lr, mu,"),
        ("momentum", {"muu": "1"}, "did you mean 'mu'?"),
        ("ubp:acp", {"eps": "1"}, "ubp:acp has no setting 'eps'; did you mean 'inner.eps'?"),
        ("sgd", {"inner.lr": "1"}, "sgd has no setting 'inner.lr'; there are lr"),
        ("ubp", {"inner": "acp"}, "ubp has no setting 'inner'"),
        ("acp", {"stats_every": "1.5"}, "acp: stats_every=1.5 is not a whole number"),
        ("acp", {"every": "1.5"}, "acp: every is"),
        ("acp", {"lr": "fast"}, "acp: lr=fast is not a number"),
        ("acp", {"alpha": "most"}, "acp: alpha is a positive number or 'max', not 'most'"),
        ("sgd", {"lr": "-1"}, "sgd: lr must be a number of more than 0, not -1.0"),
        ("ubp", {"mode": "gnn"}, "ubp: unknown UBP mode 'gnn'; the modes are gn,"),
        ("", {}, "unknown method ''"),
    ],
)
def test_refusals(spec, settings, words):
    with pytest.raises(UsageError) as refused:
        parse(spec, settings)
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_wrappers_go_over_any_method():
    method = parse("schedule:adam", {"shape": "cosine", "inner.lr": "1e-3"})
    assert method == optim.Scheduled(optim.Adam(1e-3), "cosine")
    nested = parse("clip-update:decay:ubp:acp", {"inner.inner.inner.lr": ".2", "inner.decay": ".1"})
    assert nested == optim.ClipUpdate(optim.WeightDecay(optim.UBP(optim.ACP(0.2)), 0.1))
    assert tuned("digits", "schedule:sgd") == {"inner.lr": tuned("digits", "sgd")["lr"]}
    with pytest.raises(UsageError, match="schedule goes over another method; name it, as in schedule:sgd"):
        parse("schedule")
    with pytest.raises(UsageError, match="schedule:adam has no setting 'lr'; did you mean 'inner.lr'?"):
        parse("schedule:adam", {"lr": 1.0})


def test_labels_of_equal_specifications_are_numbered():
    assert labels(["sgd", "ubp:acp", "sgd", "dir/my.py:Mine", "sgd"]) == [
        "sgd",
        "ubp:acp",
        "sgd-2",
        "my.py:Mine",
        "sgd-3",
    ]


@pytest.mark.parametrize(
    "names, texts, expected",
    [
        (["acp"], ["lr=.1"], {"acp": {"lr": ".1"}}),
        (["acp"], ["acp.lr=.1,eps=2"], {"acp": {"lr": ".1", "eps": "2"}}),
        (["ubp"], ["inner.lr=.1"], {"ubp": {"inner.lr": ".1"}}),
        (["ubp:acp", "acp"], ["ubp.mode=mc", "acp.lr=1"], {"ubp:acp": {"mode": "mc"}, "acp": {"lr": "1"}}),
        (["ubp", "ubp:acp"], ["ubp.mode=mc", "ubp:acp.mode=gn"], {"ubp": {"mode": "mc"}, "ubp:acp": {"mode": "gn"}}),
        (["sgd", "sgd-2"], ["sgd-2.lr=1", "sgd.lr=2"], {"sgd": {"lr": "2"}, "sgd-2": {"lr": "1"}}),
        (["my.py:Mine", "sgd"], ["Mine.lr=1", "my.py:Mine.mu=2"], {"my.py:Mine": {"lr": "1", "mu": "2"}, "sgd": {}}),
    ],
)
def test_settings_go_to_their_method(names, texts, expected):
    assert assign(names, texts) == expected


@pytest.mark.parametrize(
    "names, text, words",
    [
        (["sgd", "adam"], "lr=1", "say whose setting it is, as in sgd.lr"),
        (["sgd", "adam"], "adm.lr=1", "no -O of this call is called 'adm'; did you mean 'adam'?"),
        (["ubp:acp", "ubp:centred"], "ubp.mode=mc", "both start with 'ubp'; write the whole name"),
        (["sgd"], "lr", "write it as setting=value"),
        (["sgd"], "lr=", "write it as setting=value"),
        (["sgd"], "=1", "write it as setting=value"),
    ],
)
def test_settings_without_an_owner(names, text, words):
    with pytest.raises(UsageError, match=words):
        assign(names, [text])


def test_a_users_class(own_file):
    method = parse(f"{own_file}:Mine", {"lr": "2"})
    assert type(method).__name__ == "Mine" and method.lr == 2.0
    assert type(parse(f"ubp:{own_file}:Half").inner).__name__ == "Half"
    assert settings_of(parse(f"{own_file}:Fails")) == {}


def test_a_users_class_that_is_not_there(own_file, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("import nothing_like_this\n")
    for spec, words in {
        f"{own_file}": "needs the name of a class",
        f"{tmp_path}/none.py:Mine": "there is no such file",
        f"{own_file}:Mien": "has no class 'Mien'; did you mean 'Mine'?",
        f"{own_file}:Other": "Other is not a subclass of optim.Method",
        f"{own_file}:dataclass": "dataclass is not a subclass of optim.Method",
        f"{broken}:Mine": "cannot be loaded: ModuleNotFoundError",
        f"ubp:{own_file}:Mine": "UBP goes over a layer rule (Gradient, Centred, ACP, …), not Mine",
    }.items():
        with pytest.raises(UsageError) as refused:
            parse(spec)
        assert words in str(refused.value)


def test_every_tuned_setting_is_valid():
    assert set(TUNED) == set(PROBLEMS)
    for methods in TUNED.values():
        for spec, settings in methods.items():
            assert settings.items() <= settings_of(parse(spec, settings)).items()


def test_ranges_are_ranges():
    for entry in {**METHODS, **INNER}.values():
        for found in entry.ranges.values():
            assert isinstance(found, Choice) or 0 < found.low < found.high
