"""What `symmetry.transform` gains as augmentation: which machine is a network, learned from its weights.

    tinymlds train --dataset ds1 --count 60 --matched --out ds1-60
    python bench/augment.py ds1-60 [--copies 0,1,4,16] [--json FILE]

Networks are divided into five folds by their indices, so that matched networks, which share initial weights, are on one
side. A model sees the training networks, or besides each of them some copies changed by random symmetries. It is tested on
networks of the other fold as they are ("plain"), and on a changed copy of each ("moved"). Figures are means of the five
accuracies; a guess gets 0.2.
"""

import argparse
import json
import warnings
from pathlib import Path

import machine
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import tinymlds
from tinymlds import symmetry

FOLDS = 5
MODELS = {
    "linear": lambda: LogisticRegression(C=0.01, max_iter=200),
    "mlp": lambda: MLPClassifier((256,), alpha=0.01, max_iter=60, batch_size=64, random_state=0),
}


def scores(dataset: tinymlds.Dataset, model: str, copies: int) -> dict[str, float]:
    """Mean accuracies over the folds, of a model that saw so many changed copies of each network."""
    weights, labels = dataset.labelled()
    indices = np.array([row["index"] for task in dataset.tasks for row in dataset.rows(task)])
    moved = symmetry.transform(dataset.architecture, weights, seed=99)
    found: dict[str, list[float]] = {"plain": [], "moved": []}
    for fold in range(FOLDS):
        seen = indices % FOLDS != fold
        more = [symmetry.transform(dataset.architecture, weights[seen], seed=copy) for copy in range(copies)]
        points, classes = np.concatenate([weights[seen], *more]), np.tile(labels[seen], copies + 1)
        fitted = make_pipeline(StandardScaler(), MODELS[model]()).fit(points, classes)
        for name, tested in (("plain", weights), ("moved", moved)):
            found[name].append(float(fitted.score(tested[~seen], labels[~seen])))
    return {name: round(float(np.mean(values)), 4) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--copies", default="0,1,4,16")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    dataset = tinymlds.open(asked.folder)
    rows = []
    for model in MODELS:
        for copies in map(int, asked.copies.split(",")):
            rows.append({"model": model, "copies": copies, **scores(dataset, model, copies)})
            print(rows[-1], flush=True)
    if asked.json:
        about = {"digest": dataset.digest, "networks": len(dataset), "folds": FOLDS, "guess": 1 / len(dataset.tasks)}
        asked.json.write_text(json.dumps({"machine": machine.describe(), **about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
