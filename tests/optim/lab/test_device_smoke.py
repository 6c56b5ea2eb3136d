"""What a person with a GPU does first: five examples and two commands with --device cuda, against the same on the CPU.

Runs where there is a device: on a GPU, or on the CPU device.
"""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.figure import Figure

from minigrad import backend
from optim.lab.tasks import NetworkTask

FOLDER = Path(__file__).parents[3] / "examples"
EXAMPLES = {  # how far curves may lie apart, as a part of the largest number: float64, or float32 over many updates
    "01_one_sweep": 1e-12,
    "05_batches": 1e-4,
    "15_own_primitive": 1e-4,
    "20_updated_backpropagation": 1e-12,
    "25_local_criterion": 1e-4,
}


@pytest.fixture(autouse=True)
def needs_a_device(device, monkeypatch):
    if device == "cpu":
        pytest.skip("compares cuda with cpu")
    monkeypatch.setattr(NetworkTask, "points", 4)  # evaluations are what takes long on the CPU device


def example(name):
    """An example's command, imported as a script would be."""
    spec = importlib.util.spec_from_file_location(f"smoke_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(FOLDER))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
    return module.main


def shown(figure):
    """All numbers that a figure draws: of lines, pictures and bars."""
    found = []
    for panel in figure.axes:
        found += [line.get_ydata() for line in panel.lines]
        found += [image.get_array().astype(float) for image in panel.images]
        found += [[patch.get_width(), patch.get_height()] for patch in panel.patches]
    return [np.asarray(np.ma.getdata(numbers), float) for numbers in found]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_draws_on_the_device_what_it_draws_on_the_host(name, device, tmp_path, monkeypatch):
    figures, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: [figures.append(self), save(self, *a, **k)][1])
    command = example(name)
    for place in ("cpu", device):
        run = CliRunner().invoke(command, ["--quick", "--device", place, "--out", str(tmp_path / place)])
        assert run.exit_code == 0, run.output
        picture = (tmp_path / place / f"{name}.png").read_bytes()
        assert picture.startswith(b"\x89PNG") and len(picture) > 20_000
    here, there = map(shown, figures)
    assert len(here) == len(there) > 1
    for expected, found in zip(here, there):
        assert np.abs(found - expected).max() <= EXAMPLES[name] * np.abs(expected).max()


@pytest.mark.parametrize("command, methods", [("train", ["adam"]), ("compare", ["sgd", "acp", "kfac", "ubp:acp"])])
def test_a_command_finds_on_the_device_what_it_finds_on_the_host(command, methods, device, minigrad):
    chosen = [word for name in methods for word in ("-O", name)]
    documents = []
    for place in ("cpu", device):
        done = minigrad(command, "digits", *chosen, "--steps", "20", "--device", place, "--out", place, "--json")
        assert done.code == 0, done.err
        documents.append(json.loads(done.out))
        assert Path(place, "digits-0", "figure.png").stat().st_size > 20_000
    here, there = (document["results"] for document in documents)
    assert documents[1]["device"] == device and [row["method"] for row in there] == methods
    for expected, found in zip(here, there):
        assert found["step"] == expected["step"] == 20
        for name in ("train_loss", "test_loss"):
            assert found[name] == pytest.approx(expected[name], rel=1e-3), (found["method"], name)
        for name in ("train_error", "test_error"):
            assert found[name] == pytest.approx(expected[name], abs=0.01), (found["method"], name)


def test_a_run_goes_on_where_it_stopped_on_the_device(device, minigrad):
    begun = minigrad("train", "digits", "-O", "acp", "--steps", "2", "--device", device)
    assert begun.code == 0, begun.err
    more = minigrad("train", "--resume", "runs/digits-0", "--steps", "4", "--json")
    whole = minigrad("train", "digits", "-O", "acp", "--steps", "4", "--device", device, "--json", "--out", "b")
    resumed, straight = (json.loads(done.out)["results"][0] for done in (more, whole))
    assert resumed["train_loss"] == straight["train_loss"]


# ------------------------------------------------------------------------------------------------------------- refusals


def test_no_device_memory_is_one_sentence_with_the_size(device, minigrad):
    pool = backend.module(device).get_default_memory_pool()
    pool.free_all_blocks()
    pool.set_limit(size=pool.total_bytes() + (1 << 19))
    try:
        found = minigrad("train", "digits", "-O", "sgd", "--steps", "1", "--device", device)
    finally:
        pool.set_limit(size=0)
    assert found.code == 1 and found.error().startswith(
        "the device's memory does not suffice: Out of memory allocating 921,600 bytes (allocated so far: "
    )
    assert found.error().endswith("; take less data or a smaller network, or device 'cpu'")


def test_a_method_of_ones_own_that_mixes_both_sides_is_one_sentence(device, minigrad):
    Path("mine.py").write_text(
        "import numpy as np\n"
        "from optim import Method\n\n\n"
        "class Mixed(Method):\n"
        "    def update(self, f, state):\n"
        "        return f.grad * np.ones(f.params.size, 'float32')\n\n\n"
        "class Host(Method):\n"
        "    def update(self, f, state):\n"
        "        return np.zeros(f.params.size, 'float32')\n"
    )
    call = "train", "digits", "--steps", "1", "--device", device, "-O"
    assert minigrad(*call, "mine.py:Mixed").error() == (
        "mine.py:Mixed: arrays of the host and of the device meet; bring them to one side with "
        "backend.asarray(array, device)"
    )
    assert minigrad(*call, "mine.py:Host").error() == (
        "mine.py:Host: the update of Host is on cpu, but the parameters are on cuda; bring it over with "
        "backend.asarray(array, 'cuda')"
    )


def test_an_example_says_why_a_device_cannot_be_used(device, monkeypatch):
    monkeypatch.setattr(backend, "gpu_status", lambda: (False, "no GPU here"))
    done = CliRunner().invoke(example("25_local_criterion"), ["--quick", "--device", device])
    assert done.exit_code == 1 and done.output == "Error: device 'cuda' cannot be used: no GPU here\n"
    done = CliRunner().invoke(example("03_step_size"), ["--quick", "--device", device])
    assert done.exit_code == 2 and "No such option" in done.output
