"""Networks of the task to the threshold of the recipe, ours and PyTorch's, one after another on one thread."""

import pytest
from steps import RIVALS, SEED, TASK, warm_up

from tinymlds.spec import Recipe, Setting
from tinymlds.training.loop import Status, train_networks

NETWORKS = 3


@pytest.mark.parametrize("rival", ["tinymlds", "torch"])
def test_threshold(benchmark, rival):
    backend = RIVALS[rival]()
    warm_up(backend)
    indices = range(NETWORKS if benchmark.enabled else 1)
    outcomes = benchmark.pedantic(lambda: list(train_networks(backend, Setting(TASK, SEED, Recipe()), indices)), rounds=1)
    assert [outcome.status for outcome in outcomes] == [Status.COMPLETE] * len(indices)
    benchmark.extra_info["epochs"] = [outcome.epochs for outcome in outcomes]
    if benchmark.enabled:
        benchmark.extra_info["networks per hour"] = 3600.0 * len(indices) / benchmark.stats.stats.median
