"""Parts of a dataset: which networks they hold, how they grow, and that everything that reads a folder reads them."""

import json
from importlib.util import find_spec

import numpy as np
import pytest
from forging import TINY, forge_description
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import tinymlds
from tinymlds.cli import app
from tinymlds.dataset import overview, reader, store
from tinymlds.dataset.commands import going_on
from tinymlds.dataset.tensorfile import TensorFile
from tinymlds.errors import DatasetError, UsageError
from tinymlds.spec import Spec, parse_part

PARTS, COUNT = 4, 10
TASKS = ("transducer_000", "transducer_001", "transducer_002")


def make(folder, part=None, count=COUNT):
    """A dataset of three tasks, or a part of it."""
    tinymlds.train(transducers=3, count=count, out=folder, part=part, checkpoints=(0, 1), workers=1, **TINY)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The whole dataset and its parts, two networks in a shard. Not to be changed."""
    root = tmp_path_factory.mktemp("parts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "SHARD", 2)
        make(root / "whole")
        for number in range(1, PARTS + 1):
            make(root / f"{number}", (number, PARTS))
        yield root


@given(st.integers(1, 12), st.lists(st.integers(1, 40), min_size=1, max_size=6))
def test_parts_divide_a_dataset_evenly(parts, counts):
    whole = Spec(tuple((f"transducer_{k:03d}", count) for k, count in enumerate(counts)))
    held = {task: [] for task in whole.indices}
    sizes = []
    for number in range(1, parts + 1):
        if all((number - 1 + place) % parts >= count for place, count in enumerate(counts)):
            with pytest.raises(UsageError, match="has no network"):
                Spec(whole.tasks, part=(number, parts))
            sizes.append(0)
            continue
        part = Spec(whole.tasks, part=(number, parts))
        sizes.append(part.networks)
        for place, (task, indices) in enumerate(part.indices.items()):
            assert all(whole.part_with(place, index, parts) == number for index in indices)
            held[task] += indices
    assert {task: sorted(indices) for task, indices in held.items()} == {t: list(r) for t, r in whole.indices.items()}
    assert max(sizes) - min(sizes) <= len(counts)
    if len(set(counts)) == 1 and counts[0] == 1:
        assert max(sizes) - min(sizes) <= 1  # a network of each task: parts are as even as they can be


def test_parts_hold_the_networks_of_the_whole(made):
    whole, found = tinymlds.open(made / "whole"), {}
    wanted = {(network.row["task"], network.row["index"]): network.weights.tobytes() for network in whole}
    for number in range(1, PARTS + 1):
        part = tinymlds.open(made / f"{number}")
        assert tinymlds.verify(part.folder, retrain=2).ok
        assert len(part) == sum(part.counts.values()) in (7, 8)
        networks = {(network.row["task"], network.row["index"]): network.weights.tobytes() for network in part}
        assert not networks.keys() & found.keys()
        found |= networks
        columns = set(whole.manifest[0]) - {"shard", "row"}
        for row in part.manifest:
            twin = whole[row["task"], row["index"]].row
            assert {key: row[key] for key in columns} == {key: twin[key] for key in columns}
    assert found == wanted


def test_everything_reads_a_part(made):
    """Indices are those of the dataset; arrays have the part's networks in index order."""
    whole, part = tinymlds.open(made / "whole"), tinymlds.open(made / "3")
    for task in TASKS:
        indices = list(part.spec.indices[task])
        assert [row["index"] for row in part.rows(task, unfinished=True)] == indices
        for kind in ("weights", "checkpoints"):
            ours, all_of_them = (getattr(dataset, kind) for dataset in (part, whole))
            extra = {"unfinished": True} if kind == "weights" else {}
            np.testing.assert_array_equal(ours(task, **extra), all_of_them(task, **extra)[indices])
        np.testing.assert_array_equal(part.losses(task)[1], whole.losses(task)[indices[1]])
        np.testing.assert_array_equal(part[task, indices[-1]].weights, whole[task, indices[-1]].weights)
        at_start = part.weights(task, epoch=0, unfinished=True)
        np.testing.assert_array_equal(at_start, whole.checkpoints(task)[indices, 0])
        splits = [row["split"] for row in whole.rows(task, unfinished=True)]
        in_train = [row["index"] for row in part.rows(task, "train", unfinished=True)]
        assert in_train == [index for index in indices if splits[index] == "train"]
    assert part.labelled(unfinished=True)[1].tolist() == [0, 0, 1, 1, 2, 2, 2]
    with pytest.raises(KeyError, match="has networks 2, 6 of transducer_000, not 3"):
        part["transducer_000", 3]
    shown = CliRunner().invoke(app, ["inspect", str(part.folder)]).stdout
    assert "7 networks (part 3/4 of a dataset)" in shown
    assert "part 3/4 of a dataset" in CliRunner().invoke(app, ["status", str(part.folder)]).stdout
    page = json.loads(CliRunner().invoke(app, ["status", str(part.folder), "--json"]).stdout)
    assert (page["part"], page["tasks"][0]) == ([3, 4], {"task": "transducer_000", "count": COUNT})


def test_dataset_json_of_a_whole_one_names_no_part(made):
    assert "part" not in json.loads((made / "whole" / store.DESCRIPTION).read_text())
    assert json.loads((made / "2" / store.DESCRIPTION).read_text())["part"] == [2, PARTS]
    name = store.shard_name("networks", "transducer_001", 1)
    assert "step" not in TensorFile(made / "whole", name).metadata
    file = TensorFile(made / "2", store.shard_name("networks", "transducer_002", 0))
    assert (file.metadata["first"], file.metadata["step"], file.metadata["count"]) == (3, PARTS, 2)


@pytest.mark.parametrize("counts", [(3, 10), (5, 9, 10)])
def test_a_grown_part_equals_one_made_at_once(made, tmp_path, counts):
    """At first it lacks networks of a task, and then it opens shards again."""
    for count in counts:
        folder = make(tmp_path / "grown", "4/4", count)
        assert tinymlds.verify(folder).ok
    sums, at_once = (reader.read_sums(place) | {store.PROVENANCE: ""} for place in (folder, made / "4"))
    assert sums == at_once
    lines = [json.loads(line) for line in (folder / store.PROVENANCE).read_text().splitlines()]
    wanted = {(task, index) for task, indices in tinymlds.open(folder).spec.indices.items() for index in indices}
    assert {(line["task"], line["index"]) for line in lines if "index" in line} == wanted


def test_two_workers_make_the_same_part(made, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "SHARD", 2)
    result = tinymlds.train(transducers=3, count=COUNT, out=tmp_path, part=(3, 4), checkpoints=(0, 1), workers=2, **TINY)
    assert result.digest == tinymlds.open(made / "3").digest


def test_a_part_without_networks_of_a_task(tmp_path):
    """Two of three tasks have one network each; everything still works."""
    folder = make(tmp_path / "few", (4, 4), 3)
    dataset = tinymlds.open(folder)
    assert dataset.counts == dict(zip(TASKS, (0, 1, 1), strict=True))
    assert tinymlds.verify(folder).ok
    assert dataset.weights(TASKS[0]).shape == (0, 4364)
    assert (dataset.losses(TASKS[0]), dataset.checkpoints(TASKS[0]).shape) == ([], (0, 2, 4364))
    with pytest.raises(KeyError, match="has no network of transducer_000"):
        dataset[TASKS[0], 0]
    assert "transducer_000         0  0 (0.0%)" in CliRunner().invoke(app, ["inspect", str(folder)]).stdout
    if find_spec("plotly") is not None:
        from tinymlds import report

        assert "part 4/4" in report.write_page(folder, tmp_path / "page.html").read_text()


def test_a_folder_keeps_to_its_part(made, tmp_path):
    for folder, part, message in [
        ("2", "3/4", "holds part 2/4, not part 3/4"),
        ("2", "2/8", "holds part 2/4, not part 2/8"),
        ("2", None, "holds part 2/4, not the whole dataset"),
        ("whole", (1, 4), "holds the whole dataset, not part 1/4"),
    ]:
        before = (made / folder / store.SUMS).read_bytes()
        with pytest.raises(UsageError, match=message):
            make(made / folder, part)
        assert (made / folder / store.SUMS).read_bytes() == before
    assert tinymlds.train(transducers=3, count=COUNT, out=made / "2", part="2/4", workers=1).progress.made == 0
    status = overview.status(made / "2")
    assert going_on(status.spec, status.folder)[:7] == ("train", "--transducers", "3", "--count", "10", "--part", "2/4")


def test_the_folder_of_a_part_is_named_after_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(tinymlds.train("xor", 3, part="2/2", workers=1, **TINY).folder) == "xor-2-of-2"


@pytest.mark.parametrize("text", ["", "2", "0/4", "5/4", "-1/4", "1/0", "1/4/2", "a/b", "1.0/2", "1/2000000", "1/9999999"])
def test_nonsense_is_refused(text, tmp_path):
    with pytest.raises(UsageError, match="part"):
        tinymlds.train("xor", 2, tmp_path / "new", part=text, workers=1)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("part", [(1,), (1, 2, 3), (1.0, 2), (True, 2), 7, (0, 1)])
def test_numbers_that_are_no_part_are_refused(part):
    with pytest.raises(UsageError, match="part"):
        parse_part(part)


def test_a_part_without_any_network_is_refused(tmp_path):
    with pytest.raises(UsageError, match="part 3/3 has no network of so small a count; make fewer parts"):
        tinymlds.train("xor", 2, tmp_path / "new", part=(3, 3), workers=1)
    assert not (tmp_path / "new").exists()


def test_whole_datasets_are_asked_for(made, tmp_path):
    with pytest.raises(UsageError, match="2 is part 2/4 of a dataset; `tinymlds merge` all of its parts first"):
        tinymlds.package([made / "2"], tmp_path / "package")


def test_whole_datasets_are_analysed(made):
    pytest.importorskip("sklearn", reason="needs scikit-learn")
    with pytest.raises(UsageError, match="part 2/4 of a dataset"):
        tinymlds.analyze([made / "2"], "which-transducer")


@pytest.mark.parametrize("part", [None, "2/4", [2], [2, 1], [0, 4], [2.0, 4], [True, 4], {}, [[2], 4], [2, 10**30]])
def test_a_part_that_is_none_is_damage(tmp_path, part):
    tinymlds.train("xor", 2, tmp_path, part=(1, 2), workers=1, **TINY)
    forge_description(tmp_path, lambda description: description.update(part=part))
    with pytest.raises((UsageError, DatasetError), match="is not a description of a tinymlds dataset"):
        tinymlds.open(tmp_path)


def test_another_part_in_dataset_json_is_found(tmp_path):
    tinymlds.train("xor", 4, tmp_path, part=(1, 2), workers=1, **TINY)
    forge_description(tmp_path, lambda description: description.update(part=[2, 2]))
    assert "xor 1 is not where it should be" in tinymlds.verify(tmp_path).problems[0]


def test_a_dry_run_counts_the_part():
    arguments = ["train", "--machine", "xor", "--count", "10", "--part", "2/4", "--dry-run", "--json", "--workers", "1"]
    recipe = [part for name, value in TINY.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    found = json.loads(CliRunner().invoke(app, [*arguments, *recipe]).stdout)
    assert (found["networks"], found["folder"]) == (3, "xor-2-of-4")
