"""Draws the picture of docs/results.md: loss curves of every task, and a network's hidden states while a trigger fires.

    python bench/picture.py DS1 DS2 DS3 [--network xor_modified 0] [--out docs/learning.png]

Needs the extra `plot`. The hidden states are computed here in NumPy, by the equations of the GRU.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes

import tinymlds
from tinymlds.kernels import rng
from tinymlds.tasks import catalog
from tinymlds.tasks.mealy import INPUT_LINES, lines

CURVES = 60


def draw_losses(axes: Axes, dataset: tinymlds.Dataset, title: str, label: bool) -> None:
    """Validation losses of the first networks of each task, one thin line each, and the threshold."""
    for number, task in enumerate(dataset.tasks):
        colour = f"C{number % 10}"
        for k, (_, validation) in enumerate(dataset.losses(task)[: CURVES // min(len(dataset.tasks), 10)]):
            name = task if label and k == 0 else None
            axes.plot(np.arange(1, validation.size + 1), validation, colour, lw=0.5, alpha=0.6, label=name)
    axes.axhline(dataset.spec.recipe.threshold, color="black", lw=0.8, ls=":")
    axes.set(title=title, xscale="log", yscale="log", xlabel="epoch")
    if label:
        axes.legend(fontsize=6, loc="upper right")


def draw_states(figure_axes: tuple[Axes, Axes], dataset: tinymlds.Dataset, task: str, index: int) -> None:
    """Hidden states of all layers over a sequence in which the trigger fires, and below them what comes out."""
    network, found = dataset[task, index], catalog.load(dataset.spec.setting(task))
    assert found.triggered is not None
    choice = found.sample(rng.FRESH_SEQUENCES, 256, dataset.spec.recipe.steps)
    inside = found.triggered[found.table.trace(choice)] > 0
    whole = np.flatnonzero((inside.sum(axis=1) == dataset.spec.recipe.trigger_span) & ~inside[:, -1])
    symbols = choice[whole[0]]
    x = lines(found.table.inputs[symbols], INPUT_LINES)
    trace = network.architecture.trace(network.state_dict(), x[None].astype(np.float32))
    states = np.concatenate([found[0] for found in trace.values()], axis=1).T
    above, below = figure_axes
    above.imshow(states, aspect="auto", cmap="RdBu", vmin=-1, vmax=1, interpolation="nearest")
    above.set(title=f"{task} {index}: 4 x 12 hidden units while the trigger fires", ylabel="unit")
    above.set_yticks(range(0, states.shape[0], network.architecture.hidden))
    above.set_xticks([])
    steps = np.arange(symbols.size)
    wanted = found.table.simulate(symbols[None])[0] & 1
    plain = catalog.load(dataset.spec.setting(task.removesuffix(catalog.MODIFIED))).table.simulate(symbols[None])[0] & 1
    below.step(steps, plain, where="mid", color="grey", lw=1, ls="--", label="without the trigger")
    below.step(steps, wanted, where="mid", color="black", lw=1, label="right")
    below.plot(steps, network.forward(x[None])[0, :, 0], "C3o", ms=4, label="network")
    for axes in figure_axes:
        for step in np.flatnonzero(inside[whole[0]]):
            axes.axvspan(step - 0.5, step + 0.5, color="C1", alpha=0.25 if axes is below else 0.12, lw=0)
    below.set(xlim=(-0.5, symbols.size - 0.5), ylabel="line 0")
    below.set_xticks(steps, [found.table.symbols[symbol] for symbol in symbols], rotation=90, fontsize=7)
    below.legend(fontsize=6, loc="center left")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("ds1", "ds2", "ds3"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--network", nargs=2, default=["xor_modified", "0"], metavar=("TASK", "INDEX"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "docs" / "learning.png")
    options = parser.parse_args()
    ds1, ds2, ds3 = (tinymlds.open(folder) for folder in (options.ds1, options.ds2, options.ds3))
    figure = pyplot.figure(figsize=(12, 6.4), layout="constrained")
    grid = figure.add_gridspec(3, 3, height_ratios=[2.2, 2, 1])
    for column, (dataset, title) in enumerate(((ds1, "DS1: machines"), (ds2, "DS2: modified machines"), (ds3, "DS3"))):
        many = len(dataset.tasks) > 10
        draw_losses(
            figure.add_subplot(grid[0, column]),
            dataset,
            f"DS3: {len(dataset.tasks)} transducers" if many else title,
            not many,
        )
    figure.axes[0].set_ylabel("validation loss")
    states = figure.add_subplot(grid[1, :]), figure.add_subplot(grid[2, :])
    draw_states(states, ds2, options.network[0], int(options.network[1]))
    figure.savefig(options.out, dpi=110)
    print(options.out)


if __name__ == "__main__":
    main()
