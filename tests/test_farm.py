"""One digest for one spec: any number of workers, any order, grown or at once; and what a folder refuses."""

import itertools
import json
from contextlib import closing

import numpy as np
import pytest
from running import SMALL, run_cli

import tinymlds
from tinymlds.dataset import reader, sealing, store
from tinymlds.dataset.journal import Entry, Journal
from tinymlds.dataset.lock import RunLock
from tinymlds.errors import TinymldsError, UsageError
from tinymlds.runs import train
from tinymlds.spec import Recipe, Spec, recipe_with
from tinymlds.training.loop import Outcome, Status


def digest(folder):
    return tinymlds.status(folder).digest


def test_one_and_two_workers_give_one_digest(tmp_path):
    one = tinymlds.train("xor", 9, tmp_path / "one", workers=1, **SMALL)
    done = run_cli(
        "train", "--machine", "xor", "--count", "9", "--out", tmp_path / "two", "--workers", "2", "-q", recipe=SMALL
    )
    assert done.returncode == 0, done.stderr
    assert one.digest == digest(tmp_path / "two")
    assert tinymlds.verify(tmp_path / "two").ok


@pytest.mark.parametrize("counts", [(3, 17), (16, 40), (5, 16, 33, 40)])
def test_a_grown_dataset_equals_one_made_at_once(tmp_path, monkeypatch, counts):
    monkeypatch.setattr(store, "SHARD", 16)
    for count in counts:
        grown = tinymlds.train("direct", count, tmp_path / "grown", workers=1, **SMALL)
    at_once = tinymlds.train("direct", counts[-1], tmp_path / "once", workers=1, **SMALL)
    assert grown.digest == at_once.digest
    assert grown.progress.made == counts[-1] - counts[-2]
    assert reader.read_sums(tmp_path / "grown") | {store.PROVENANCE: ""} == reader.read_sums(tmp_path / "once") | {
        store.PROVENANCE: ""
    }
    assert tinymlds.verify(tmp_path / "grown").ok
    lines = [json.loads(line) for line in (tmp_path / "grown" / store.PROVENANCE).read_text().splitlines()]
    assert [line["index"] for line in lines if "index" in line] == list(range(counts[-1]))
    runs = {line["run"] for line in lines if "host" in line}
    assert {line["run"] for line in lines if "index" in line} <= runs


def test_networks_do_not_depend_on_the_count_or_on_the_task_that_ran_before(tmp_path):
    tinymlds.train("parity", 2, tmp_path / "parity", workers=1, **SMALL)
    few = tinymlds.train("xor", 2, tmp_path / "few", workers=1, **SMALL)
    many = tinymlds.train("xor", 5, tmp_path / "many", workers=1, **SMALL)
    rows = [tinymlds.open(folder).manifest[:2] for folder in (few.folder, many.folder)]
    assert rows[0] == rows[1]


def test_a_changed_seed_or_recipe_changes_the_networks(tmp_path):
    results = [
        tinymlds.train("xor", 1, tmp_path / str(k), workers=1, **{**SMALL, **change})
        for k, change in enumerate([{}, {"seed": 1}, {"lr": 0.002}, {"batch": 64}])
    ]
    rows = [tinymlds.open(result.folder).manifest[0]["weights_sha256"] for result in results]
    assert len(set(rows)) == 4


def test_a_finished_folder_is_left_alone(tmp_path):
    first = tinymlds.train("xor", 2, tmp_path, workers=1, **SMALL)
    before = (tmp_path / store.PROVENANCE).read_bytes()
    again = tinymlds.train("xor", 2, tmp_path, workers=1)  # the folder's own recipe
    assert again.digest == first.digest
    assert again.progress.made == 0
    assert (tmp_path / store.PROVENANCE).read_bytes() == before


def failing_commit(commit, number):
    """`store.commit`, but call `number` (from 0) fails."""
    calls = itertools.count()

    def fail_once(path, data):
        if next(calls) == number:
            raise TinymldsError(f"no room for {path}")
        return commit(path, data)

    return fail_once


def test_sealing_can_be_interrupted_anywhere(tmp_path, monkeypatch):
    """Fail each commit of a seal in turn: the journal stays, and the next run seals the same dataset."""
    expected = tinymlds.train("xor", 3, tmp_path / "undisturbed", workers=1, **SMALL).digest
    commit, folder = store.commit, tmp_path / "disturbed"
    number = len(reader.read_sums(tmp_path / "undisturbed")) + 1
    for failing in range(number):
        monkeypatch.setattr(store, "commit", failing_commit(commit, failing))
        with pytest.raises(TinymldsError, match="no room"):
            tinymlds.train("xor", 3, folder, workers=1, **SMALL)
        assert (folder / store.JOURNAL).exists()
    monkeypatch.setattr(store, "commit", commit)
    assert tinymlds.train("xor", 3, folder, workers=1).digest == expected
    assert not (folder / store.JOURNAL).exists()


def test_growing_can_be_interrupted_while_sealing(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "SHARD", 2)
    expected = tinymlds.train("xor", 5, tmp_path / "undisturbed", workers=1, **SMALL).digest
    commit, folder = store.commit, tmp_path / "grown"
    tinymlds.train("xor", 3, folder, workers=1, **SMALL)
    for failing in range(8):
        monkeypatch.setattr(store, "commit", failing_commit(commit, failing))
        with pytest.raises(TinymldsError, match="no room"):
            tinymlds.train("xor", 5, folder, workers=1)
    monkeypatch.setattr(store, "commit", commit)
    assert tinymlds.train("xor", 5, folder, workers=1).digest == expected
    assert tinymlds.verify(folder).ok


def test_a_journal_remembers_its_own_recipe(tmp_path):
    spec = Spec((("xor", 4),), 7, recipe_with(Recipe(), SMALL))
    Journal.create(tmp_path, spec, {}, [], {}).close()
    result = tinymlds.train("xor", 4, tmp_path, workers=1)
    assert tinymlds.open(result.folder).spec == spec


@pytest.mark.parametrize(
    ("change", "named"),
    [({"seed": 3}, "seed"), ({"lr": 0.01}, "lr"), ({"count": 1}, "count"), ({"machine": "parity"}, "tasks")],
)
def test_another_spec_is_refused_while_work_is_under_way(tmp_path, change, named):
    spec = Spec((("xor", 2),), 0, recipe_with(Recipe(), SMALL))
    Journal.create(tmp_path, spec, {}, [], {}).close()
    before = (tmp_path / store.JOURNAL).read_bytes()
    with pytest.raises(UsageError, match=named):
        tinymlds.train(**{"machine": "xor", "count": 2, "out": tmp_path, "workers": 1, **change})
    assert (tmp_path / store.JOURNAL).read_bytes() == before


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ([], [range(20)]),
        ([k for k in range(20) if k % 4 != 2], [range(2, 19, 4)]),
        ([3, 4, 9], [range(3), range(5, 9), range(10, 20)]),
        ([k for k in range(20) if k not in (1, 6, 11, 12, 17)], [range(1, 7, 5), range(11, 13), range(17, 18)]),
        (range(20), []),
    ],
)
def test_what_is_missing(tmp_path, there, expected):
    """Single networks at equal distances are one run, so that a unit can hold several of them."""
    with closing(Journal.create(tmp_path, Spec((("xor", 20),)), {}, [], {})) as journal:
        losses = np.ones(1, np.float32)
        outcomes = [Outcome(k, Status.STALLED, "", losses, losses, losses, losses, 0.0) for k in there]
        journal.add([Entry("xor", 1, outcome, 0.0) for outcome in outcomes])
        assert [list(gap) for _, gap in train.missing(journal)] == [list(run) for run in expected]


def test_a_folder_belongs_to_one_run(tmp_path):
    with RunLock(tmp_path):
        with pytest.raises(UsageError, match=r"another run works on .* \(process \d+ on"):
            tinymlds.train("xor", 1, tmp_path, workers=1, **SMALL)
        other = run_cli("train", "--machine", "xor", "--count", "1", "--out", tmp_path)
        assert other.returncode == 2
        assert "another run works on" in other.stderr
    assert not (tmp_path / store.LOCK).exists()
    assert tinymlds.train("xor", 1, tmp_path, workers=1, **SMALL).progress.made == 1


def test_an_empty_journal_file_is_taken_over(tmp_path):
    (tmp_path / store.JOURNAL).touch()
    assert tinymlds.train("xor", 1, tmp_path, workers=1, **SMALL).progress.made == 1


def test_progress_counts_up_to_the_total(tmp_path):
    seen = []
    tinymlds.train("xor", 6, tmp_path, workers=1, progress=seen.append, **SMALL)
    assert [state.done for state in seen] == sorted(state.done for state in seen)
    assert (seen[0].done, seen[-1].done, seen[-1].total) == (0, 6, 6)
    assert seen[-1].epochs == 6 * SMALL["max_epochs"]


def test_generate_refuses_a_folder_with_networks(tmp_path):
    tinymlds.train("xor", 1, tmp_path, workers=1, **SMALL)
    before = digest(tmp_path)
    with pytest.raises(UsageError, match="holds networks"):
        tinymlds.generate("xor", tmp_path, **SMALL)
    assert digest(tmp_path) == before


def test_rows_below_the_base_are_kept_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "SHARD", 2)
    tinymlds.train("xor", 3, tmp_path, workers=1, **SMALL)
    rows = sealing.rows_below(tmp_path, {"xor": 2})
    assert [row["index"] for row in rows] == [0, 1]
