"""Is the machine told from initial weights at chance (0.2)? Datasets of eight seeds, 5 x 100; ridge, ten folds by index.

python bench/initial_chance.py
"""

import numpy as np

from tinymlds.spec import Recipe, Setting
from tinymlds.tasks import machines
from tinymlds.training import data


def accuracy(seed: int, count: int = 100, folds: int = 10) -> float:
    recipe = Recipe()
    keys = [Setting(task, seed, recipe) for task in machines.MACHINES]
    weights = np.array([data.initial_weights(key, index) for key in keys for index in range(count)], np.float64)
    kernel = weights @ weights.T / weights.var() / weights.shape[1]
    index, label = np.tile(np.arange(count), len(keys)), np.repeat(np.arange(len(keys)), count)
    right = 0
    for fold in range(folds):
        test = index % folds == fold
        target = np.eye(len(keys))[label[~test]] - 1 / len(keys)
        dual = np.linalg.solve(kernel[np.ix_(~test, ~test)] + np.eye(int((~test).sum())), target)
        right += int((np.argmax(kernel[np.ix_(test, ~test)] @ dual, axis=1) == label[test]).sum())
    return right / len(label)


if __name__ == "__main__":
    found = [accuracy(seed) for seed in range(8)]
    print(found, np.mean(found), "standard error", np.std(found, ddof=1) / len(found) ** 0.5)
