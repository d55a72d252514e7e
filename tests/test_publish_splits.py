"""Splits: nothing that belongs together is on two sides, and they depend on names and networks alone."""

import json
from dataclasses import dataclass

import pytest
from running import EASY, lines_of

import tinymlds
from tinymlds.dataset.dataset import Dataset
from tinymlds.dataset.manifest import SPLITS
from tinymlds.errors import DatasetError
from tinymlds.publish import schemes
from tinymlds.publish.audit import Audit
from tinymlds.publish.parts import Part
from tinymlds.publish.schemes import drawn, grouped, leak


def everything_passed(parts):
    return Audit({}, {(part.name, task): set(range(part.full.counts[task])) for part in parts for task in part.full.tasks})


def made(parts):
    return {scheme.name: scheme for scheme in schemes.make(parts, everything_passed(parts))}


def tasks_by_side(scheme):
    return {side: sorted({(row["dataset"], row["task"]) for row in rows}) for side, rows in scheme.sides.items()}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Name -> Part: machines and twins (matched), ten transducers, and families of three bases."""
    root = tmp_path_factory.mktemp("untrained")
    asked = {
        "ds1": {"dataset": "ds1", "matched": True, "count": 4},
        "ds2": {"dataset": "ds2", "matched": True, "count": 6},
        "ds3": {"transducers": 10, "count": 2},
        **{f"family{k}": {"transducers": 2, "edits": 1, "family": k, "count": 2} for k in (0, 1, 2)},
    }
    small = {**EASY, "train_sequences": 32, "validation_sequences": 16}
    for name, options in asked.items():
        tinymlds.train(out=root / name, workers=1, seed=12, **options, **small)
    return {name: Part(name, Dataset(root / name)) for name in asked}


def test_by_index_is_the_column_and_twins_are_together(folders):
    scheme = made([folders["ds1"], folders["ds2"]])["by_index"]
    assert {side: len(rows) for side, rows in scheme.sides.items()} == {"train": 30, "validation": 10, "test": 10}
    side_of = {}
    for side, rows in scheme.sides.items():
        for row in rows:
            assert row["split"] == side
            side_of[row["base"], row["index"], row["modified"]] = side
    assert all(side_of[base, k, False] == side_of[base, k, True] for base, k, modified in side_of if modified and k < 4)
    assert leak(scheme, [folders["ds1"], folders["ds2"]]) == ""


def test_by_task_keeps_a_machine_with_its_twin(folders):
    parts = [folders["ds1"], folders["ds2"]]
    scheme = made(parts)["by_task"]
    bases = [{row["base"] for row in rows} for rows in scheme.sides.values()]
    assert sorted(map(len, bases)) == [1, 1, 3]
    assert len(set().union(*bases)) == 5
    assert sum(map(len, scheme.sides.values())) == 50
    assert leak(scheme, parts) == ""


def test_by_task_keeps_tasks_that_do_the_same_together(folders):
    """The base of family k is transducer k of dataset 3, whatever its number in the family."""
    parts = [folders[name] for name in ("ds3", "family0", "family1", "family2")]
    scheme = made(parts)["by_task"]
    side_of = {task: side for side, tasks in tasks_by_side(scheme).items() for task in tasks}
    for k in range(3):
        assert side_of["ds3", f"transducer_00{k}"] == side_of[f"family{k}", "transducer_000"]
    assert sum(map(len, scheme.groups.values())) == 13
    assert {len(scheme.groups[side]) for side in ("validation", "test")} == {1}


def test_by_family_keeps_families_whole(folders):
    parts = [folders[name] for name in ("ds1", "family0", "family1", "family2")]
    scheme = made(parts)["by_family"]
    assert sorted(tasks_by_side(scheme).values()) == [
        [(f"family{k}", "transducer_000"), (f"family{k}", "transducer_001")] for k in range(3)
    ]
    assert {row["base"] for row in scheme.sides["test"]} < {f"transducer_00{k}" for k in range(3)}


def test_schemes_are_left_out_where_there_is_too_little(folders):
    schemes = made([folders["family0"], folders["family1"]])
    assert schemes["by_family"].sides == {}
    assert schemes["by_family"].left_out.startswith("2 groups")
    assert schemes["by_family"].files() == {}
    assert schemes["by_task"].sides.keys() == set(SPLITS)


def test_only_networks_that_passed_are_there(folders):
    part = folders["ds1"]
    audit = everything_passed([part])
    audit.passed["ds1", "xor"] = {1}
    rows = [row for scheme in schemes.make([part], audit) for rows in scheme.sides.values() for row in rows]
    assert {row["index"] for row in rows if row["task"] == "xor"} == {1}
    assert {row["index"] for row in rows if row["task"] == "parity"} == {0, 1, 2, 3}


def test_the_draw_depends_on_names_alone():
    names = [f"task {k}" for k in range(40)]
    sides = drawn("by_task", names)
    assert sides == drawn("by_task", reversed(names))
    assert sides != drawn("by_family", names)
    assert [list(sides.values()).count(side) for side in SPLITS] == [32, 4, 4]
    assert sorted(drawn("by_task", names[:3]).values()) == sorted(SPLITS)


def test_ties_join_through_others():
    nodes = [("d", str(k)) for k in range(5)]
    ties = {nodes[0]: {"a"}, nodes[1]: {"b"}, nodes[2]: {"a", "b"}, nodes[3]: {"c"}, nodes[4]: {"c"}}
    assert grouped(ties) == [nodes[:3], nodes[3:]]


@dataclass
class Moved:
    """A scheme in which a row has been put on the wrong side."""

    scheme: schemes.Scheme

    def __enter__(self):
        self.row = self.scheme.sides["train"].pop()
        self.scheme.sides["test"].append(self.row)
        return self.row

    def __exit__(self, *_):
        self.scheme.sides["train"].append(self.scheme.sides["test"].pop())


@pytest.mark.parametrize("name", ["by_index", "by_task"])
def test_a_leak_is_found(folders, name):
    """A twin on another side shares initial weights, or its machine."""
    parts = [folders["ds1"], folders["ds2"]]
    scheme = made(parts)[name]
    scheme.sides["train"].sort(key=lambda row: (not row["modified"], -row["index"]))  # the last: index 0 of a machine
    with Moved(scheme) as row:
        assert f"{row['dataset']}/{row['task']} {row['index']}" in leak(scheme, parts)
    assert leak(scheme, parts) == ""


def test_the_same_weights_on_two_sides_are_refused(folders, monkeypatch):
    part = folders["ds1"]
    extended = schemes.extended
    monkeypatch.setattr(schemes, "extended", lambda part, row: {**extended(part, row), "weights_sha256": "0" * 64})
    with pytest.raises(DatasetError, match=r"the split by_index would leak: .* share .*weights"):
        schemes.make([part], everything_passed([part]))


def test_the_files_of_a_package(packaged):
    for scheme in ("by_index", "by_task"):
        found = [row for side in SPLITS for row in lines_of(packaged / "splits" / scheme / f"{side}.jsonl")]
        assert len(found) == 16
        for row in found:
            own = tinymlds.open(packaged, row["dataset"])[row["task"], row["index"]].row
            label = {"base": row["task"].removesuffix("_modified"), "modified": row["task"] == "direct_modified"}
            assert row == {**own, "dataset": row["dataset"], **label}
    assert not (packaged / "splits" / "by_family").exists()
    assert (
        json.dumps(found[0], sort_keys=True, separators=(",", ":"))
        in (packaged / "splits" / "by_task" / "train.jsonl").read_text().splitlines()
    )
