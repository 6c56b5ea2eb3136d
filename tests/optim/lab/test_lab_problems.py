"""Problems on data sets: sizes, encoded targets, refusals; and the evaluation against the objective."""

import numpy as np
import pytest

import minigrad as mg
from minigrad import data
from minigrad.data import DataError
from optim.lab.errors import LabError, UsageError
from optim.lab.problems import PROBLEMS, problem


@pytest.fixture(scope="module")
def digits8():
    return data.load("digits8")


def test_sizes_are_the_papers():
    assert PROBLEMS["autoencoder"].net(784, 784).size() == 2_837_314
    assert PROBLEMS["classifier"].net(784, 10).size() == 784 * 512 + 512 + 512 * 512 + 512 + 512 * 10 + 10
    assert PROBLEMS["digits"].net(64, 10).size() == 64 * 32 + 32 + 32 * 32 + 32 + 32 * 10 + 10


def test_the_code_layer_is_linear_and_the_output_a_sigmoid():
    kinds = [type(layer).__name__ for layer in PROBLEMS["autoencoder"].net(784, 784).leaves()]
    code = kinds.index("Dense", 6)
    assert kinds[:7] == ["Dense", "Sigmoid"] * 3 + ["Dense"] and code == 6
    assert kinds[7:] == ["Dense", "Sigmoid"] * 4


@pytest.mark.parametrize("name", PROBLEMS)
def test_evaluation_is_the_objective_on_the_whole_part(name, digits8, device):
    task = problem(name).prepare(digits8, device=device, dtype="float64")
    params = task.initial(3)
    found = task.evaluate(params)
    for part, (x, y) in (("train", task.train), ("test", task.heldout)):
        f = mg.Objective(task.net, task.problem.loss, params, x, y)
        assert found[f"{part}_loss"] == pytest.approx(float(f.value), rel=1e-12)
        if name == "autoencoder":
            assert f"{part}_error" not in found and y is x
        else:
            z = mg.backend.to_host(f.output)
            assert found[f"{part}_error"] == np.mean(z.argmax(1) != getattr(digits8, part)[1])


def test_problems_and_functions_are_found_by_name():
    assert problem("digits") is PROBLEMS["digits"]
    found = problem("quadratic", {"kappa": "1e4", "dim": 12})
    assert (found.name, found.kappa, found.dim, found.budget) == ("quadratic", 1e4, 12, ("steps", 200))
    assert PROBLEMS["digits"].budget == ("seconds", 2.0)
    with pytest.raises(UsageError, match="digits is a network and has no settings"):
        problem("digits", {"dim": 3})
    with pytest.raises(UsageError, match="rotated has no setting 'kapa'; there are kappa, dim; did you mean 'kappa'?"):
        problem("rotated", {"kapa": 3})


def test_targets_are_encoded_once(digits8):
    y = problem("digits").prepare(digits8).train[1]
    assert y.dtype == np.float32 and y.shape == (3600, 10)
    np.testing.assert_array_equal(y.argmax(1), digits8.train[1])


def test_a_tuner_sees_the_validation_part(digits8):
    task = problem("digits").prepare(digits8, heldout="valid")
    np.testing.assert_array_equal(task.heldout[0], digits8.valid[0])
    with pytest.raises(UsageError, match="unknown part 'vaild'; .*did you mean 'valid'"):
        problem("digits").prepare(digits8, heldout="vaild")


def test_refusals(digits8, tmp_path):
    with pytest.raises(UsageError, match="unknown problem 'autoencodr'; .*did you mean 'autoencoder'"):
        problem("autoencodr")
    with pytest.raises(UsageError, match="unknown dtype 'float16'"):
        problem("digits").prepare(digits8, dtype="float16")
    rng = np.random.default_rng(0)
    path = tmp_path / "targets.npz"
    np.savez(path, x=rng.standard_normal((50, 7)), y=rng.standard_normal((50, 2)))
    with pytest.raises(LabError, match="classifier needs labels, but the y of .* holds targets"):
        problem("classifier").prepare(data.load(path))
    with pytest.raises(LabError, match=r"outputs between 0 and 1, but the x of .* reaches from -"):
        problem("autoencoder").prepare(data.load(path))


def test_ones_own_targets_are_not_needed_to_reconstruct(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "targets.npz"
    np.savez(path, x=rng.random((50, 7)), y=rng.standard_normal((50, 2)))
    task = problem("autoencoder").prepare(data.load(path))
    assert task.train[1] is task.train[0] and task.train[0].shape == (36, 7) and task.batch == 36


def test_damaged_data_is_the_readers_error(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"no zip")
    with pytest.raises(DataError, match="not an .npz file"):
        data.load(tmp_path / "x.npz")
