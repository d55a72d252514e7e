"""A machine and its twin that share their initial weights are a pair: both networks are on one side of a split."""

import numpy as np
import pytest
from forging import make

import tinymlds

pytest.importorskip("sklearn", reason="needs scikit-learn")

from tinymlds.analysis import models, splits

pytestmark = pytest.mark.usefixtures("small_forests")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """xor and its twin, matched, with the weights before training: networks that share those are a pair."""
    place = tmp_path_factory.mktemp("pairs")
    common = {"count": 15, "threshold": 10.0, "matched": True, "checkpoints": (0,)}
    make(place / "xor", "xor", **common)
    make(place / "twin", "xor", modified=True, **common)
    return place


def apart(place, monkeypatch):
    """For each seed of an experiment: how many pairs are in more than one part, and how many have both of their networks.

    Counted from the files and from what models are shown; what the analysis knows of pairs and splits has no say.
    """
    initial = {}
    for name in ("xor", "twin"):
        dataset = tinymlds.open(place / name)
        (task,) = dataset.tasks
        before, after = dataset.checkpoints(task)[:, 0], dataset.weights(task)
        initial |= {end.tobytes(): start.tobytes() for start, end in zip(before, after, strict=True)}
    assert len(initial) == 30
    assert len(set(initial.values())) == 15, "fifteen pairs"
    seen, fit = [], models.fit

    def watch(model, fold, *arguments):
        seen.append({"train": fold.train.copy(), "validation": fold.validation})
        fitted = fit(model, fold, *arguments)

        def scores(features):
            seen[-1]["test"] = features  # the last that it is asked for
            return fitted.scores(features)

        return fitted._replace(scores=scores)

    with monkeypatch.context() as patch:
        patch.setattr(models, "fit", watch)
        tinymlds.analyze([place / "xor", place / "twin"], "tampered", seeds=4, rungs="knn/raw/plain")
    counted = []
    for parts in seen:
        assert sum(map(len, parts.values())) == 30
        sides = {}
        for part, networks in parts.items():
            for weights in networks:
                sides.setdefault(initial[weights.tobytes()], []).append(part)
        counted.append((sum(len(set(both)) > 1 for both in sides.values()), sum(len(both) == 2 for both in sides.values())))
    return counted


def test_the_networks_of_a_pair_are_on_one_side(pairs, monkeypatch):
    assert apart(pairs, monkeypatch) == [(0, 15)] * 4


def test_split_pairs_would_be_counted(pairs, monkeypatch):
    """Of a division by network instead of index."""

    def by_place(_, name, index):
        return np.flatnonzero(np.arange(len(index)) % 4 % 3 == splits.SPLITS.index(name))

    monkeypatch.setattr(splits.Split, "part", by_place)
    assert all(split_pairs > 0 for split_pairs, _ in apart(pairs, monkeypatch))
