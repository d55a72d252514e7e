"""An architecture and an optimizer registered from outside go all the way: trained, sealed, verified, exported, shown."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import toy_architecture
import toy_optimizer
from running import EASY, ROOT

import tinymlds
from tinymlds import UsageError, symmetry
from tinymlds.architectures import ARCHITECTURES, params
from tinymlds.architectures.recurrent import GruLinear, LstmLinear, RnnLinear
from tinymlds.kernels.optimizers import OPTIMIZERS
from tinymlds.kernels.problem import Problem, Sequences
from tinymlds.spec import Recipe
from tinymlds.training import backends
from tinymlds.training.backends.cpu import CpuBackend
from tinymlds.training.loop import require_backend

TOY = {"architecture": "linear-maps", "width": 6, **EASY}
DESCENT = {"optimizer": "descent", "decay": 0.25, **EASY}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Twenty-one networks of the toy architecture, made by two processes."""
    folder = tmp_path_factory.mktemp("toy") / "made"
    tinymlds.train("xor", 21, folder, workers=2, checkpoints=(0, 1), **TOY)
    return tinymlds.open(folder)


def lines(words, count):
    return (words[..., None] >> np.arange(count) & 1).astype(np.float64)


def problem_of(architecture, optimizer, steps=5, batch=48):
    generator = np.random.default_rng(3)
    drawn = (generator.integers(0, 1 << size, (2 * batch, steps)) for size in (architecture.inputs, architecture.outputs))
    sequences = Sequences(*(each.astype(np.uint16) for each in drawn))
    return Problem(architecture, sequences, sequences, batch, optimizer)


def test_its_gradients_are_those_of_an_oracle():
    """The first minibatch of 48, in float64; sums of 48 x 5 terms of order 1 round to some 1e-6 of the largest."""
    shape = toy_architecture.LinearMaps(width=6)
    problem = problem_of(shape, Recipe().optimizer)
    weights = params.initial(shape, (1, 2), 0)
    network = CpuBackend().network(problem, weights)
    [loss] = network.epoch(np.arange(48, dtype=np.uint32), 0.0)
    W1, W2, b = (tensor.astype(np.float64) for tensor in params.to_tensors(shape, weights).values())
    assert np.array_equal(b, np.full(8, 0.125))
    x, target = (lines(each[:48], size) for each, size in zip(problem.train, (9, 8), strict=True))
    between = x @ W1.T
    error = between @ W2.T + b - target
    assert loss == pytest.approx((error**2).mean(), rel=1e-6)
    d = 2 * error / error.size
    expected = {"0.weight": np.einsum("nti,ntj->ij", d @ W2, x), "1.weight": np.einsum("nti,ntj->ij", d, between)}
    expected["1.bias"] = d.sum((0, 1))
    for name, tensor in params.to_tensors(shape, network._work.gradient[: shape.size]).items():
        np.testing.assert_allclose(tensor, expected[name], rtol=0, atol=2e-6 * np.abs(expected[name]).max(), err_msg=name)


def test_a_step_of_the_optimizer_is_that_of_an_oracle():
    """One step from the gradient that an optimizer without a rate leaves in the buffers: three roundings."""
    optimizer = toy_optimizer.Descent(decay=0.25)
    shape = GruLinear(hidden=4, layers=1, maps=1)
    weights = params.initial(shape, (1, 2), 0)
    network = CpuBackend().network(problem_of(shape, optimizer), weights)
    network.epoch(np.arange(48, dtype=np.uint32), 0.5)
    gradient = network._work.gradient[: shape.size].astype(np.float64)
    expected = weights - 0.5 * (gradient + 0.25 * weights.astype(np.float64))
    np.testing.assert_allclose(network.weights, expected, rtol=3 * 2.0**-24, atol=1e-8)


def test_it_is_verified_and_made_again(made):
    assert made.architecture == ARCHITECTURES["linear-maps"](width=6)
    assert made.weights("xor").shape == (21, 9 * 6 + 6 * 8 + 8)
    found = tinymlds.verify(made.folder, retrain=2, workers=1)
    assert (found.problems, found.retrained, found.losses_recomputed) == ([], 2, 21)
    alone = tinymlds.train("xor", 21, made.folder.parent / "alone", workers=1, checkpoints=(0, 1), **TOY)
    assert alone.digest == made.digest


def test_a_folder_says_what_its_architecture_and_optimizer_own_and_nothing_else(made, tmp_path):
    recipe = json.loads((made.folder / "dataset.json").read_text())["recipe"]
    assert (recipe["architecture"], recipe["width"], recipe["optimizer"], recipe["lr"]) == ("linear-maps", 6, "adam", 0.01)
    assert not {"hidden", "gru_layers", "linear_maps", "head_activation"} & recipe.keys()
    tinymlds.train("xor", 2, tmp_path / "descent", workers=1, **DESCENT)
    recipe = json.loads((tmp_path / "descent" / "dataset.json").read_text())["recipe"]
    assert (recipe["optimizer"], recipe["decay"], recipe["lr"], recipe["lr_decay"]) == ("descent", 0.25, 0.5, 0.0)
    assert not {"beta1", "beta2", "eps"} & recipe.keys()
    assert tinymlds.verify(tmp_path / "descent", retrain=1, workers=1).problems == []
    with pytest.raises(UsageError, match="made with optimizer descent, not adam"):
        tinymlds.train("xor", 3, tmp_path / "descent", workers=1, optimizer="adam")


def test_it_is_exported_packaged_and_shown(made, tmp_path):
    path = made["xor", 3].save(tmp_path / "one.safetensors")
    assert safetensors.numpy.load_file(path)["0.weight"].shape == (6, 9)
    tinymlds.package([made.folder], tmp_path / "package", tolerate=True)
    card = (tmp_path / "package" / "README.md").read_text()
    assert "two linear maps with 6 numbers between them" in card
    assert "--architecture linear-maps --width 6" in card
    pytest.importorskip("plotly", reason="the report needs plotly")
    from tinymlds import report

    report.write_page(made.folder, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "between the maps" in page
    assert "second map" in page


def test_it_has_symmetries_and_a_module_in_pytorch(made):
    weights, shape = made.weights("xor"), made.architecture
    moved = symmetry.transform(shape, weights, 5)
    assert not np.array_equal(moved, weights)
    assert np.array_equal(symmetry.canonicalize(shape, moved), symmetry.canonicalize(shape, weights))
    assert symmetry.describe(shape)["components"] == "720"
    torch = pytest.importorskip("torch")
    network = made["xor", 0]
    x = np.random.default_rng(0).integers(0, 2, (3, 4, 9)).astype(np.float32)
    expected = tinymlds.torch.module(network)(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(network.forward(x), expected, atol=1e-6)  # sums of 9 and 6 terms of order 1


def test_what_is_not_possible_is_one_clear_error(made):
    with pytest.raises(UsageError, match="no kernels for linear-maps on cuda; use --backend cpu"):
        require_backend("cuda", made.spec.recipe)
    with pytest.raises(UsageError, match="architecture linear-maps and optimizer adam has no option hidden"):
        Recipe.of(architecture="linear-maps", hidden=4)
    with pytest.raises(ValueError, match="there is an architecture 'gru-linear' already"):
        tinymlds.architectures.register(type("Other", (GruLinear,), {}))
    with pytest.raises(ValueError, match="there is an optimizer 'adam' already"):
        tinymlds.kernels.optimizers.register(type("Other", (OPTIMIZERS["adam"],), {}))


def test_a_folder_of_an_architecture_that_nobody_registered_is_refused_by_name(made):
    code = "import sys, tinymlds; tinymlds.open(sys.argv[1])"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(made.folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=Path(ROOT).anchor, check=False)
    assert "UsageError" in done.stderr
    assert "architecture must be one of gru-linear, lstm-linear, rnn-linear, not 'linear-maps'" in done.stderr


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
@pytest.mark.parametrize(
    "architecture",
    [*(kind(hidden=4, layers=1, maps=1) for kind in (GruLinear, LstmLinear, RnnLinear)), toy_architecture.LinearMaps()],
)
def test_every_pair_trains(architecture, name):
    """The loss of the same sequences falls over 20 epochs, whatever the pair."""
    optimizer = OPTIMIZERS[name]()
    problem = problem_of(architecture, optimizer)
    [population] = [CpuBackend().population([problem], [(1, 2)], lambda _: 0.02, 0.0, 1)]
    population.admit(0, params.initial(architecture, (1, 2), 0))
    population.start([backends.Job(0, 0, 0, 1, 20)])
    [stretch] = population.finish()
    assert stretch.validation_losses[-1] < stretch.validation_losses[0]
    assert stretch.not_finite == ""
