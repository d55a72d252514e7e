"""Datasets of many tasks: what is asked for, how the work is laid out, checkpoints, the status page, the forecast."""

import json
import re
import shutil
from collections import Counter

import numpy as np
import pytest
from running import SMALL, run_cli

import tinymlds
from tinymlds.architectures import params
from tinymlds.dataset import overview, reader, store
from tinymlds.dataset.journal import Entry
from tinymlds.dataset.tensorfile import TensorFile, tensors_bytes
from tinymlds.errors import UsageError
from tinymlds.runs import dry_run, execution, train
from tinymlds.runs.pools import InProcess
from tinymlds.runs.supervisor import Supervisor
from tinymlds.runs.units import Unit
from tinymlds.spec import Recipe, Setting, Spec, parse_checkpoints, recipe_with
from tinymlds.tasks import catalog
from tinymlds.training import backends, data, loop, metrics
from tinymlds.training.loop import Outcome, Status

CHECKPOINTS = (0, 1, 3, 8)


@pytest.fixture(scope="module")
def ds2(tmp_path_factory):
    """Two networks of each modified machine, matched, with checkpoints."""
    folder = tmp_path_factory.mktemp("many") / "ds2"
    tinymlds.train(dataset="ds2", count=2, out=folder, workers=1, matched=True, checkpoints=CHECKPOINTS, **SMALL)
    return tinymlds.open(folder)


@pytest.mark.parametrize(
    ("asked", "name", "chosen"),
    [
        ({"machine": "SimpleXORMachine"}, "xor", ("xor",)),
        ({"machine": "parity", "modified": True}, "parity_modified", ("parity_modified",)),
        ({"machine": "ParityModified"}, "parity_modified", ("parity_modified",)),
        ({"machine": "transducer_5"}, "transducer_005", ("transducer_005",)),
        ({"dataset": "ds1"}, "ds1", ("eightbit", "direct", "invert", "xor", "parity")),
        ({"dataset": "ds3", "only": 42}, "transducer_042", ("transducer_042",)),
        ({"only": 42}, "transducer_042", ("transducer_042",)),
        ({"dataset": "ds3", "transducers": 2}, "ds3", ("transducer_000", "transducer_001")),
    ],
)
def test_what_is_asked_for(asked, name, chosen):
    assert catalog.choose(**asked) == (name, chosen)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({}, "name a task"),
        ({"machine": "xor", "dataset": "ds1"}, "and not both"),
        ({"dataset": "ds4"}, "ds1, ds2, ds3"),
        ({"dataset": "ds1", "modified": True}, "ds2"),
        ({"dataset": "ds1", "only": 3}, "ds3"),
        ({"machine": "xor", "transducers": 3}, "ds3"),
        ({"machine": "transducer_5", "modified": True}, "no modified twin"),
        ({"only": 3, "transducers": 3}, "only one"),
        ({"transducers": 0}, "between 1 and"),
        ({"only": -1}, "no task"),
    ],
)
def test_what_makes_no_sense_is_refused(asked, words):
    with pytest.raises(UsageError, match=words):
        catalog.choose(**asked)


def test_the_command_line_asks_the_same_way(tmp_path):
    done = run_cli("train", "--only", 7, "--count", 1, "--out", tmp_path / "a", "--workers", 1, "-q", recipe=SMALL)
    assert done.returncode == 0, done.stderr
    assert tinymlds.open(tmp_path / "a").tasks == ("transducer_007",)
    done = run_cli("generate", "--machine", "xor", "--modified", "--out", tmp_path / "b", recipe=SMALL)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "b" / "data" / "xor_modified.dot").exists()
    for arguments, word in (
        (("--dataset", "ds9"), "ds9"),
        (("--machine", "xor", "--trigger-key", "set 9"), "trigger_key"),
        (("--machine", "xor", "--checkpoints", "3,1"), "ascend"),
        (("--machine", "xor", "--checkpoints", "1,x"), "checkpoints"),
        (("--machine", "xor", "--family", 3), "edits"),
    ):
        refused = run_cli("train", *arguments, "--count", 1, "--out", tmp_path / "c")
        assert (refused.returncode, word in refused.stderr, (tmp_path / "c").exists()) == (2, True, False)


def handed_out(seconds, count, workers):
    """The units that a supervisor hands out, in order, where a network of a task takes `seconds[task]`."""
    done = []

    def note(unit):
        done.append((unit.task, unit.start, unit.stop))
        losses, weights = np.zeros(1, np.float32), np.zeros(unit.recipe.architecture.size, np.float32)
        arrays = weights, losses, losses, np.zeros((0, weights.size), np.float32)
        return [Outcome(k, Status.COMPLETE, "", *arrays, seconds[unit.task]) for k in range(unit.start, unit.stop)]

    pool = InProcess()
    pool.workers = workers
    units = [Unit(Setting(task, 0, Recipe()), "cpu", 0, count) for task in seconds]
    for _ in Supervisor(units, pool, note).run():
        pass
    return done


def test_tasks_advance_together():
    seconds = {"xor": 0.1, "parity": 0.6, "eightbit": 5.0}
    done = handed_out(seconds, 30, workers=1)
    made = Counter()
    for task, start, stop in done:
        assert start == made[task], "every index once, in order"
        assert start <= min(made[other] for other in seconds), "no task begins a unit while another is behind it"
        made[task] = stop
    assert made == dict.fromkeys(seconds, 30)
    assert max(stop - start for task, start, stop in done if task == "xor") == 10  # about a second's worth


def test_the_longest_networks_do_not_come_last():
    """With two workers the other would wait for a network that is started last and takes 50 times as long as the rest."""
    seconds = {"xor": 1.0, "eightbit": 50.0, "parity": 1.0}
    alone, two = (handed_out(seconds, 30, workers) for workers in (1, 2))
    assert sorted(alone) == sorted(two) == sorted((task, k, k + 1) for task in seconds for k in range(30))
    assert "eightbit" in [task for task, *_ in alone[-3:]]
    assert {task for task, *_ in two[-6:]} == {"xor", "parity"}
    assert [unit for unit in two if unit[0] == "eightbit"] == [("eightbit", k, k + 1) for k in range(30)]


def test_a_dataset_of_many_tasks(ds2):
    assert ds2.tasks == catalog.DATASETS["ds2"]
    assert [(row["task"], row["index"]) for row in ds2.manifest] == [(task, k) for task in ds2.tasks for k in range(2)]
    assert ds2["ParityModified", 1].row == ds2["parity_modified", 1].row
    assert tinymlds.verify(ds2.folder).ok
    alone = tinymlds.train(
        "xor", 2, ds2.folder.parent / "alone", modified=True, workers=1, matched=True, checkpoints=CHECKPOINTS, **SMALL
    )
    assert list(tinymlds.open(alone.folder).manifest) == ds2.rows("xor_modified", unfinished=True)


def test_checkpoints_are_the_weights_of_their_epochs(ds2):
    for task in ds2.tasks:
        stored = ds2.checkpoints(task)
        assert (stored.shape, stored.dtype) == ((2, 4, 4364), np.float32)
        assert np.isnan(stored[:, 3]).all(), "training ended after three epochs"
        assert np.array_equal(stored[:, 2], ds2.weights(task, unfinished=True))
        key = catalog.load(Setting(task, 0, ds2.spec.recipe)).stream_key
        assert np.array_equal(stored[1, 0], params.initial(ds2.shape, key, 1))
    recipe = recipe_with(ds2.spec.recipe, {"max_epochs": 1})
    (short,) = loop.train_networks(backends.load("cpu"), Setting("xor_modified", 0, recipe), range(1, 2))
    assert np.array_equal(ds2.checkpoints("xor_modified")[1, 1], short.weights)
    assert [row["checkpoints"] for row in ds2.manifest] == [3] * 10


def test_checkpoints_never_reach_a_weight(ds2, tmp_path):
    without = tinymlds.train(dataset="ds2", count=2, out=tmp_path / "ds2", workers=1, matched=True, **SMALL)
    opened = tinymlds.open(without.folder)
    for column in ("weights_sha256", "losses_sha256", *metrics.COLUMNS):
        assert [row[column] for row in opened.manifest] == [row[column] for row in ds2.manifest]
    assert opened.checkpoints("xor_modified").shape == (2, 0, 4364)
    with pytest.raises(UsageError, match="checkpoints"):
        tinymlds.train(dataset="ds2", count=3, out=without.folder, workers=1, checkpoints=(0, 1))


def test_checkpoints_survive_growth(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "SHARD", 2)
    for folder, counts in (("grown", (1, 3, 5)), ("once", (5,))):
        for count in counts:
            tinymlds.train("xor", count, tmp_path / folder, workers=1, checkpoints=(0, 2), **SMALL)
    grown, once = (tinymlds.open(tmp_path / folder) for folder in ("grown", "once"))
    assert grown.digest == once.digest
    assert grown.checkpoints("xor").tobytes() == once.checkpoints("xor").tobytes()
    assert tinymlds.verify(grown.folder).ok


def test_epochs_in_text():
    assert parse_checkpoints("0,1, 2,4") == (0, 1, 2, 4)
    assert parse_checkpoints("") == ()
    for text in ("a", "1,,2", "-1", "1.5", "0,1,"):
        with pytest.raises(UsageError, match="checkpoints"):
            parse_checkpoints(text)


def forge(folder, change):
    """Change the manifest of a dataset and its checksum, as a clever forger would."""
    rows = [json.loads(line) for line in (folder / store.MANIFEST).read_text().splitlines()]
    change(rows)
    text = "".join(json.dumps(row, sort_keys=True, separators=(",", ":")) + "\n" for row in rows)
    old = reader.read_sums(folder)[store.MANIFEST]
    (folder / store.MANIFEST).write_text(text)
    sums = (folder / store.SUMS).read_text()
    (folder / store.SUMS).write_text(sums.replace(old, reader.file_sha256(folder, store.MANIFEST)))


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("trigger_efficacy", "measures otherwise"),
        ("accuracy", "measures otherwise"),
        ("checkpoints", "1 checkpoints, and 2 by its epochs"),
        ("checkpoints_sha256", "other checkpoints"),
    ],
)
def test_verify_measures_again(tmp_path, column, words):
    tinymlds.train("xor_modified", 2, tmp_path, workers=1, checkpoints=(0, 1), **SMALL)
    other = {"checkpoints": 1, "checkpoints_sha256": "0" * 64}.get(column, 1.0)
    forge(tmp_path, lambda rows: rows[1].update({column: other}))
    found = tinymlds.verify(tmp_path)
    assert [words in problem and "xor_modified 1" in problem for problem in found.problems] == [True]


def test_verify_looks_at_checkpoints_that_were_not_reached(tmp_path):
    tinymlds.train("xor", 1, tmp_path, workers=1, checkpoints=(1, 5), **SMALL)
    name = store.shard_name("checkpoints", "xor", 0)
    file = TensorFile(tmp_path, name)
    tensors = {key: array.copy() for key, array in file.read().items()}
    tensors["head.4.bias"][0, 1] = 7.0
    old = reader.read_sums(tmp_path)[name]
    (tmp_path / name).write_bytes(tensors_bytes(tensors, file.metadata))
    sums = (tmp_path / store.SUMS).read_text()
    (tmp_path / store.SUMS).write_text(sums.replace(old, reader.file_sha256(tmp_path, name)))
    problems = tinymlds.verify(tmp_path).problems
    assert len(problems) == 1
    assert "xor 0 has checkpoints of epochs that it did not reach" in problems[0]


def page(counts, asked):
    spec = Spec(tuple((f"transducer_{k:03d}", asked) for k in range(len(counts))))
    statuses = {f"transducer_{k:03d}": Counter(complete=n, stalled=asked // 100) for k, n in enumerate(counts)}
    return overview.transducers(overview.FolderStatus(None, spec, statuses, None, [], {}))


def test_the_page_of_transducers():
    found = page([0, 10, 249, 250, 750, 751, 990, 1000], 1000)
    assert list(found.shares.values()) == [1, 2, 2, 2, 1]
    assert found.milestones == {100: 10 + 6 * 100, 1000: 4000}
    assert (found.complete, found.total) == (4000, 8000)
    assert page([5, 5], 5).milestones == {5: 10}
    part = Spec((("transducer_000", 1), ("transducer_001", 1)), part=(1, 2))  # which has no network of transducer_001
    statuses = {"transducer_000": Counter(complete=1), "transducer_001": Counter()}
    assert overview.FolderStatus(None, part, statuses, None, [], {}).shares() == {"transducer_000": 1, "transducer_001": 1}


def test_a_time_that_no_calendar_has_is_left_out(ds2, tmp_path):
    folder = shutil.copytree(ds2.folder, tmp_path / "late")
    lines = (folder / store.PROVENANCE).read_text()
    (folder / store.PROVENANCE).write_text(re.sub(r'"finished":[0-9.]+', '"finished":1e300', lines))
    printed = run_cli("status", folder)
    assert (printed.returncode, printed.stderr) == (0, "")
    assert "  -" in printed.stdout


def test_status_tells_what_is_under_way(ds2, tmp_path):
    found = tinymlds.status(ds2.folder)
    assert {task: (found.complete(task), found.in_progress(task)) for task in ds2.tasks} == dict.fromkeys(ds2.tasks, (0, 0))
    assert set(found.updated) == set(ds2.tasks)
    printed = run_cli("status", ds2.folder, "--watch")
    assert printed.returncode == 0, "a sealed dataset is not waited for"
    assert "4364" in printed.stdout
    assert found.digest in printed.stdout
    run_cli("train", "--dataset", "ds3", "--transducers", 3, "--count", 1, "--out", tmp_path / "t", "-q", recipe=SMALL)
    printed = run_cli("status", tmp_path / "t")
    assert "3 transducers: 0 of 3 networks complete, 3 other, 0 to do" in printed.stdout
    assert json.loads(run_cli("status", tmp_path / "t", "--json").stdout)["transducers"]["shares"]["0 %"] == 3


def test_a_dry_run_makes_nothing(ds2, tmp_path):
    dry = ("train", "--dataset", "ds2", "--dry-run", "--workers", 1)
    printed = run_cli(*dry, "--count", 100, "--matched", "--out", tmp_path / "new", "--json")
    assert printed.returncode == 0, printed.stderr
    expected = json.loads(printed.stdout)
    assert (expected["networks"], expected["there"], expected["tasks"]) == (500, 0, 5)
    assert 0 < expected["seconds"][0] < expected["seconds"][1]
    assert expected["known"]
    assert not (tmp_path / "new").exists()
    before = {path: path.stat().st_mtime_ns for path in ds2.folder.rglob("*")}
    printed = run_cli(*dry, "--count", 3, "--out", ds2.folder)
    assert "5 networks to make (10 are there), 5 tasks" in printed.stdout
    assert "not the default one" in printed.stdout
    assert {path: path.stat().st_mtime_ns for path in ds2.folder.rglob("*")} == before
    for arguments, words in (
        (("--count", 1, "--out", ds2.folder), "shrink"),
        (("--count", 1, "--out", tmp_path / "new", "--workers", 0), "workers must be at least 1"),
        (("--count", 1, "--out", tmp_path / "new", "--backend", "abacus"), "no backend 'abacus'"),
        (("--count", 1, "--out", ds2.folder / store.MANIFEST), "is a file"),
    ):
        refused = run_cli(*dry, *arguments)
        assert (refused.returncode, words in refused.stderr) == (2, True), refused.stderr


def test_a_dry_run_of_what_is_there(ds2):
    printed = run_cli("train", "--dataset", "ds2", "--dry-run", "--count", 2, "--out", ds2.folder, "--json")
    expected = json.loads(printed.stdout, parse_constant=pytest.fail)
    assert (expected["networks"], expected["there"], expected["journal_bytes"]) == (0, 10, 0)
    assert expected["epochs_per_second"] is None
    printed = run_cli("train", "--dataset", "ds2", "--dry-run", "--count", 2, "--out", ds2.folder)
    assert "nothing to make" in printed.stdout


def test_all_workers_try_how_fast_they_are():
    assert dry_run.epochs_per_second(Setting("xor", 0, recipe_with(Recipe(), SMALL)), "cpu", 2) > 0


def test_the_range_of_a_forecast():
    epochs = {"xor": (2.0, 1.0), "transducer_000": (10.0, 3.0), "transducer_001": (10.0, 3.0)}
    missing = {"xor": 5, "transducer_000": 10, "transducer_001": 20}
    n = data.EPOCHS_FROM
    spread = 2 * np.sqrt((5 + 25 / n) * 1.0 + (30 + 900 / n) * 9.0)  # transducers share one mean
    assert dry_run._epochs_range(missing, epochs) == pytest.approx((310 - spread, 310 + spread))
    assert dry_run._epochs_range({"xor": 1}, {"xor": (1.0, 9.0)})[0] == 0.0


def test_the_bytes_of_a_forecast_are_about_those_of_the_folder(ds2):
    request = train.Request("ds2", ds2.tasks, 2, None, None, {})
    expected = dry_run.forecast(request, ds2.folder, execution.check_resources(workers=1))
    size = sum(path.stat().st_size for path in ds2.folder.rglob("*") if path.is_file())
    assert 0.8 * size < expected.bytes < 1.2 * size
    assert (expected.networks, expected.seconds) == (0, (0.0, 0.0))


def test_the_forecast_of_a_run():
    def entry(task, epochs, seconds):
        losses, empty = np.zeros(epochs, np.float32), np.zeros(0, np.float32)
        return Entry(task, 1, Outcome(0, Status.COMPLETE, "", empty, losses, losses, empty, seconds), 0.0)

    gaps = [("xor", range(10)), ("parity", range(4)), ("direct", range(6, 8))]
    made = [entry("xor", 10, 1.0), entry("xor", 30, 3.0), entry("parity", 200, 20.0)]
    for recipe in (recipe_with(Recipe(), {"lr": 0.1}), Recipe()):
        found = execution.Eta(gaps, recipe)
        assert found.networks_left == 16
        assert found.seconds_left(2) == float("inf")
        found.add(made)
        xor, parity, direct = 20.0, 200.0, 80.0  # epochs: own means, and for direct the mean of all
        if recipe == Recipe():
            known = {task: data.expected_epochs(task, recipe)[0] for task in ("xor", "parity", "direct")}
            weight = data.EPOCHS_FROM
            xor = (weight * known["xor"] + 40) / (weight + 2)
            parity = (weight * known["parity"] + 200) / (weight + 1)
            direct = known["direct"]
        work = 0.1 * (8 * xor + 3 * parity + 2 * direct)
        assert found.seconds_left(2) == pytest.approx(work / 2)
        assert found.seconds_left(2, 0.5) == pytest.approx(work / 2 - 0.5)
        assert found.seconds_left(2, 1e6) == 0.0
        assert found.seconds_left(100) == pytest.approx(work / 13), "no more workers than networks are left"
