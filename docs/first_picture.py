"""From training to a picture: networks of three tasks, placed by what differs most between their weights.

    python docs/first_picture.py [--count 30] [--folder picture] [--out first_picture.png]

Needs the extra `plot`. With the default numbers it takes about half a minute on two cores, and a second the next time.
"""

import argparse

import numpy as np
from matplotlib import pyplot

import tinymlds

TASKS = ("direct", "xor", "eightbit")


def draw(count: int, folder: str, out: str, **recipe: int) -> None:
    """Train what is not there yet, and draw it."""
    for task in TASKS:
        tinymlds.train(task, count, f"{folder}/{task}", **recipe)
    datasets = {task: tinymlds.open(f"{folder}/{task}") for task in TASKS}
    weights = [dataset.weights(task, unfinished=True) for task, dataset in datasets.items()]
    every = np.concatenate(weights)
    left, scale, _ = np.linalg.svd(every - every.mean(axis=0), full_matrices=False)
    groups = np.split(left[:, :2] * scale[:2], np.cumsum([len(w) for w in weights])[:-1])

    figure, (plane, curves) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for number, ((task, dataset), points) in enumerate(zip(datasets.items(), groups, strict=True)):
        plane.scatter(*points.T, color=f"C{number}", s=18, label=task)
        for _, validation in dataset.losses(task):
            curves.plot(np.arange(1, validation.size + 1), validation, f"C{number}o-", ms=3, lw=0.8)
    plane.set(title="Weights, principal components", xlabel="first", ylabel="second")
    plane.legend()
    curves.axhline(1e-4, color="black", ls=":", lw=0.8)
    curves.set(title="Validation loss; dotted: complete", xlabel="epoch", yscale="log")
    figure.savefig(out, dpi=110)


if __name__ == "__main__":  # training spawns processes
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--folder", default="picture")
    parser.add_argument("--out", default="first_picture.png")
    draw(**vars(parser.parse_args()))
