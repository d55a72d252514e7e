"""One training step (gather, forward, backward, Adam) at T = 16, ours and PyTorch's, each on one thread.

    python -m pytest bench -n 0 --benchmark-enable --benchmark-json=bench/results/steps.json

`extra_info` holds trained sample-steps per second and the loss after the first steps. `compare.py` interleaves the rivals
and so gives the fairer ratios.
"""

from dataclasses import replace

import numpy as np
import pytest
from rivals import Jax, Population, StackedTorch
from steps import BATCHES, LOSS_TOLERANCE, RIVALS, SEED, TASK, WEIGHT_TOLERANCE, Stepper

from tinymlds.spec import Recipe

FIRST_STEPS = 8


@pytest.mark.parametrize("batch", BATCHES)
def test_rivals_learn_the_same(batch):
    ours, reference = (Stepper(RIVALS[name](), replace(Recipe(), batch=batch)) for name in ("tinymlds", "torch"))
    losses = ours(FIRST_STEPS)
    assert losses[-1] < 0.9 * losses[0], "the losses must have moved to prove anything"
    np.testing.assert_allclose(losses, reference(FIRST_STEPS), rtol=LOSS_TOLERANCE)
    np.testing.assert_allclose(ours.weights, reference.weights, rtol=0.0, atol=WEIGHT_TOLERANCE)


@pytest.mark.parametrize("rival", ["torch", "jax"])
def test_rivals_with_many_networks_learn_the_same(rival):
    if rival == "jax":
        pytest.importorskip("jax", reason="JAX is not installed")
    recipe = replace(Recipe(), batch=16)
    population = Population(TASK, SEED, recipe, 3)
    many = StackedTorch(population) if rival == "torch" else Jax(population, unroll=4)
    losses = many(FIRST_STEPS)
    for index in range(population.count):
        ours = Stepper(RIVALS["tinymlds"](), recipe, index)
        np.testing.assert_allclose(ours(FIRST_STEPS), losses[:, index], rtol=LOSS_TOLERANCE)
        np.testing.assert_allclose(ours.weights, many.weights[index], rtol=0.0, atol=WEIGHT_TOLERANCE)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("rival", ["tinymlds", "torch"])
def test_step(benchmark, rival, batch):
    stepper = Stepper(RIVALS[rival](), replace(Recipe(), batch=batch))
    first = stepper(FIRST_STEPS)  # compiles and warms up
    benchmark(stepper, 1)
    benchmark.extra_info[f"loss after {FIRST_STEPS} steps"] = float(first[-1])
    if benchmark.enabled:
        benchmark.extra_info["sample-steps per second"] = stepper.sample_steps / benchmark.stats.stats.median
