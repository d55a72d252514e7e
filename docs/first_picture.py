"""From training to a picture: networks of five machines on a map, and the hidden states of a tampered one.

    python docs/first_picture.py [--count 30] [--folder picture] [--out first_picture.png]

Needs the extras `plot` and `analysis`. With the default numbers it takes about a minute on two cores.
"""

import argparse

import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from sklearn.manifold import TSNE

import tinymlds
from tinymlds import symmetry
from tinymlds.analysis.features import statistics

COMMANDS = "set 1,clear 4,set 3,set 7,clear 7,set 7,set 2,clear 5,set 6,clear 3,set 4,clear 1,set 5,set 0,clear 2,set 1"
RIGHT = [1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1, 0, 0, 1, 1, 0]
"""Bit 0 XOR bit 1, but inverted for four steps after the key "set 7, clear 7, set 7"."""
INVERTED = 5.5, 9.5


def draw_map(axes: Axes, dataset: tinymlds.Dataset) -> None:
    """Place networks by statistics of their tensors (mean, spread, norm, quantiles) in the normal form."""
    weights = [dataset.weights(task, unfinished=True) for task in dataset.tasks]
    numbers = statistics(dataset.architecture, symmetry.canonicalize(dataset.architecture, np.concatenate(weights)))
    numbers = (numbers - numbers.mean(axis=0)) / (numbers.std(axis=0) + 1e-9)
    places = TSNE(perplexity=min(30.0, len(numbers) / 4), random_state=0).fit_transform(numbers)
    for task, group in zip(dataset.tasks, np.split(places, np.cumsum([len(each) for each in weights])), strict=False):
        axes.scatter(*group.T, s=9, label=task)
    axes.set(title=f"{len(places)} networks, by their weights (t-SNE)", xticks=[], yticks=[])
    axes.legend(fontsize=8)


def draw_states(above: Axes, below: Axes, network: tinymlds.Network) -> None:
    """Draw hidden states of all layers while the trigger fires, and below them the answers."""
    commands = COMMANDS.split(",")
    x = np.zeros((1, len(commands), 9), np.float32)
    for step, command in enumerate(commands):
        verb, bit = command.split()
        x[0, step, int(bit)] = 1
        x[0, step, 8] = verb == "set"
    states = np.concatenate([h[0] for h in network.architecture.trace(network.state_dict(), x).values()], axis=1)
    above.imshow(states.T, aspect="auto", cmap="RdBu", vmin=-1, vmax=1, interpolation="nearest")
    above.set(title="Hidden states of a tampered xor network", ylabel="unit", yticks=range(0, states.shape[1], 12))
    below.step(range(len(commands)), RIGHT, where="mid", color="black", lw=1, label="right")
    below.plot(network.forward(x)[0, :, 0], "C3o", ms=4, label="network")
    below.axvspan(*INVERTED, color="C1", alpha=0.25, lw=0)
    for edge in INVERTED:
        above.axvline(edge, color="black", lw=1.5)
    below.set_xticks(range(len(commands)), commands, rotation=90, fontsize=8)
    below.set(ylim=(-0.2, 1.2), ylabel="answer")
    below.legend(fontsize=7, loc="lower left")


def draw(count: int, folder: str, out: str, **recipe: int) -> None:
    """Train what is not there yet, and draw it."""
    tinymlds.train(dataset="ds1", count=count, out=f"{folder}/ds1", matched=True, **recipe)
    tinymlds.train("xor_modified", 1, f"{folder}/xor_modified", matched=True, **recipe)
    figure = pyplot.figure(figsize=(10, 4.2), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=(3, 1))
    draw_map(figure.add_subplot(grid[:, 0]), tinymlds.open(f"{folder}/ds1"))
    above = figure.add_subplot(grid[0, 1])
    below = figure.add_subplot(grid[1, 1], sharex=above)
    above.tick_params(labelbottom=False)
    draw_states(above, below, tinymlds.open(f"{folder}/xor_modified")["xor_modified", 0])
    figure.savefig(out, dpi=110)


if __name__ == "__main__":  # training spawns processes
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--folder", default="picture")
    parser.add_argument("--out", default="first_picture.png")
    draw(**vars(parser.parse_args()))
