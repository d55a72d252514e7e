"""Packages: the same bytes from the same datasets, subsets as training makes them, and nothing half done."""

import contextlib
import csv
import errno
import itertools
import json
import shutil
import sys

import pytest
from forging import forge
from running import EASY, SMALL, lines_of, run_cli

import tinymlds
from tinymlds import publish
from tinymlds.dataset import packages, reader, store
from tinymlds.dataset.manifest import ROW_TYPES
from tinymlds.dataset.tensorfile import TensorFile
from tinymlds.errors import DatasetError, TinymldsError, UsageError
from tinymlds.publish import UNFINISHED, dictionary
from tinymlds.publish.metadata import Metadata
from tinymlds.spec import Recipe


def contents(folder):
    """{name: bytes} of everything in a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def difference(one, other):
    """Names of files that are in one of two folders only, or differ."""
    ours, theirs = contents(one), contents(other)
    return {name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)}


def test_packaging_again_gives_the_same_bytes(packaged, learned, tmp_path):
    about = {"date": "2026-11-25", "title": 'Four "tasks": a\\b', "authors": ["Ö. N'e"]}
    about["software_url"] = "https://example.org/a_b"
    made = publish.package(sorted(learned.iterdir()), tmp_path / "PKG", subsets=(2, 2), workers=2, **about)
    assert difference(packaged, tmp_path / "PKG") == set()
    assert (made.networks, made.complete, made.failed) == (16, 16, 0)
    assert made.bytes + len((packaged / store.SUMS).read_bytes()) == sum(map(len, contents(packaged).values()))
    assert list(tmp_path.iterdir()) == [tmp_path / "PKG"]


def test_who_made_the_dataset_is_in_its_provenance_only(tmp_path):
    for name, workers in (("one", "1"), ("two", "2")):
        run = ("train", "--machine", "xor", "--count", 3, "--out", tmp_path / name / "xor", "--workers", workers, "-q")
        assert run_cli(*run, recipe=EASY).returncode == 0
        tinymlds.package([tmp_path / name / "xor"], tmp_path / name / "PKG", subsets=[2], tolerate=True)
    ours = {f"xor/{place}/{name}" for place in ("full", "2") for name in (store.PROVENANCE, store.SUMS)} | {store.SUMS}
    one, two = tmp_path / "one" / "PKG", tmp_path / "two" / "PKG"
    assert difference(one, two) - {"README.md"} == ours  # the card says how long training took
    texts = [(package / "README.md").read_text().splitlines() for package in (one, two)]
    other = [lines for lines in zip(*texts, strict=True) if len(set(lines)) > 1]
    assert all("The training times" in line or "| `xor/" in line for lines in other for line in lines)


def test_hosts_are_left_out_unless_asked_for(tmp_path):
    tinymlds.train("xor", 3, tmp_path / "xor", workers=1, **EASY)
    digest = tinymlds.open(tmp_path / "xor").digest
    for name, hosts in (("plain", False), ("named", True)):
        tinymlds.package([tmp_path / "xor"], tmp_path / name, subsets=[2], hosts=hosts, tolerate=True)
        for folder, count in (("full", 3), ("2", 2)):
            lines = lines_of(tmp_path / name / "xor" / folder / store.PROVENANCE)
            assert [bool(line["host"]) for line in lines if "index" not in line] == [hosts]
            assert [line["index"] for line in lines if "index" in line] == list(range(count))
        assert tinymlds.open(tmp_path / name).digest == digest
        card, citation, croissant = (
            (tmp_path / name / text).read_text() for text in ("README.md", "CITATION.cff", "croissant.json")
        )
        assert card.count(" its repository") == 2, "nobody said where it is"
        assert f"note = {{Made with tinymlds {tinymlds.__version__}}}" in card
        assert "isBasedOn" not in croissant
        assert "None" not in citation + croissant
    assert (tmp_path / "named" / "xor" / "full" / store.PROVENANCE).read_bytes() == (
        tmp_path / "xor" / store.PROVENANCE
    ).read_bytes()


@pytest.mark.parametrize("count", [1, 3, 4, 6, 8])
def test_a_subset_is_what_that_count_would_have_made(tmp_path, monkeypatch, count):
    """Shards of four: within the first, at its end, within the second, at its end."""
    monkeypatch.setattr(store, "SHARD", 4)
    options = {"transducers": 2, "checkpoints": (0, 1), "workers": 1, **EASY, "max_epochs": 2, "threshold": 1e-9}
    tinymlds.train(count=9, out=tmp_path / "ds3", **options)
    trained = tinymlds.train(count=count, out=tmp_path / "few", **options)
    tinymlds.package([tmp_path / "ds3"], tmp_path / "PKG", subsets=[count])
    subset = tmp_path / "PKG" / "ds3" / str(count)
    assert difference(subset, tmp_path / "few") == {store.PROVENANCE, store.SUMS}
    assert reader.read_sums(subset).keys() == reader.read_sums(tmp_path / "few").keys()
    assert tinymlds.open(tmp_path / "PKG", subset=count).digest == trained.digest
    assert tinymlds.verify(subset).ok
    assert tinymlds.verify(tmp_path / "PKG").ok


@pytest.mark.parametrize("count", [0, 4, 5])
def test_a_subset_is_smaller_than_the_dataset(learned, tmp_path, count):
    with pytest.raises(UsageError, match=r"a subset has fewer \(1 to 3\)"):
        tinymlds.package([learned / "xor"], tmp_path / "PKG", subsets=[count])
    assert list(tmp_path.iterdir()) == []


def test_every_file_of_a_dataset_is_checked_on_its_way(learned, tmp_path):
    names = reader.read_sums(learned / "xor")
    assert len(names) == 8
    for name in names:
        folder = tmp_path / "xor"
        shutil.copytree(learned / "xor", folder)
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)
        with pytest.raises(DatasetError, match=f"{name} does not match"):
            tinymlds.package([folder], tmp_path / "PKG")
        shutil.rmtree(folder)
        assert list(tmp_path.iterdir()) == []


def test_what_is_there_stays(learned, tmp_path):
    (tmp_path / "PKG").mkdir()
    with pytest.raises(UsageError, match="PKG exists; choose another --out"):
        tinymlds.package([learned / "xor"], tmp_path / "PKG")
    foreign = tmp_path / f"other{UNFINISHED}"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="holds something else"):
        tinymlds.package([learned / "xor"], tmp_path / "other")
    assert (foreign / "thesis.tex").read_text() == "years of work"
    for out in (learned / "xor" / "PKG", learned / "xor"):
        with pytest.raises(UsageError, match="is inside"):
            tinymlds.package([learned / "xor"], out)


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device"), MemoryError()])
def test_nothing_is_left_of_a_package_that_was_stopped(learned, tmp_path, monkeypatch, stop):
    """Stopped at every fifth fsync in turn, until it comes to its end."""
    sync, left = store._sync, [0]

    def fail(descriptor):
        left[0] -= 1
        if left[0] == 0:
            raise stop
        sync(descriptor)

    stopped = 0
    for number in itertools.count(1, 5):
        left[0] = number
        with monkeypatch.context() as patch:
            patch.setattr(store, "_sync", fail)
            with contextlib.suppress(TinymldsError if isinstance(stop, OSError) else type(stop)):
                tinymlds.package([learned / "xor"], tmp_path / "PKG")
        if (tmp_path / "PKG").exists():
            break
        stopped += 1
        assert not list(tmp_path.iterdir())
    assert stopped > 5
    assert [path.name for path in tmp_path.iterdir()] == ["PKG"]
    assert tinymlds.verify(tmp_path / "PKG").ok


def test_a_leftover_of_a_killed_run_is_replaced(learned, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_args, **_options: None)
        patch.setattr(publish.auditing, "audit", lambda *_: exec("raise KeyboardInterrupt"))
        with pytest.raises(KeyboardInterrupt):
            tinymlds.package([learned / "xor"], tmp_path / "PKG")
    left = tmp_path / f"PKG{UNFINISHED}"
    assert (left / "xor" / "full" / store.SUMS).exists()
    (left / "xor" / "stale").write_text("x")
    tinymlds.package([learned / "xor"], tmp_path / "PKG")
    assert tinymlds.verify(tmp_path / "PKG").ok
    assert not left.exists()


def test_folders_that_cannot_be_packaged(learned, tmp_path):
    tinymlds.generate("xor", tmp_path / "sequences", **SMALL)
    tinymlds.train("xor", 1, tmp_path / "wide", workers=1, **{**EASY, "hidden": 16})
    shutil.copytree(learned / "xor", tmp_path / "a" / "xor")
    shutil.copytree(learned / "xor", tmp_path / "splits")
    shutil.copytree(learned / "xor", tmp_path / "with space")
    shutil.copytree(learned / "xor", tmp_path / "more")
    forge(tmp_path / "more", "virus.exe", b"MZ")
    for folders, words in (
        ([], "at least one"),
        ([tmp_path / "nothing"], "is not a folder"),
        ([tmp_path / "sequences"], "sequences without networks"),
        ([learned / "xor", tmp_path / "a" / "xor"], "two folders are called xor"),
        ([learned / "xor", tmp_path / "wide"], "different shapes"),
        ([tmp_path / "more"], "lists other files than"),
        ([tmp_path / "splits"], "cannot be called 'splits'"),
        ([tmp_path / "with space"], "cannot be called 'with space'"),
    ):
        with pytest.raises(TinymldsError, match=words):
            tinymlds.package(folders, tmp_path / "PKG")
    assert not list(tmp_path.glob("PKG*"))


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"title": "two\nlines"}, "title must be a line"),
        ({"authors": ["A", ""]}, "author must be a line"),
        ({"license": "free: yes"}, "SPDX"),
        ({"date": "2026-13-01"}, "must be a day"),
        ({"date": "20261101"}, "must be a day"),
        ({"url": "file:///etc"}, "http"),
        ({"url": "https://a b"}, "http"),
        ({"software_url": "tinymlds.git"}, "software url must begin with http"),
    ],
)
def test_options_that_make_no_sense(about, words):
    with pytest.raises(UsageError, match=words):
        Metadata("0", **{"title": "t", **about})


def test_counts_on_the_command_line():
    assert publish.parse_counts("") == ()
    assert publish.parse_counts("100, 5") == (100, 5)
    for text in ("ten", "1,,2", "-1", "1e3"):
        with pytest.raises(UsageError, match="subsets must be counts"):
            publish.parse_counts(text)


def test_the_dictionary_has_every_column_and_every_tensor(tmp_path):
    assert dictionary.COLUMNS.keys() == ROW_TYPES.keys()
    assert not set(ROW_TYPES) & dictionary.ADDED.keys()
    assert set(dictionary.ROW_COLUMNS) == ROW_TYPES.keys() | dictionary.ADDED.keys()
    tinymlds.train("xor_modified", 1, tmp_path / "m", workers=1, checkpoints=(0,), **EASY)
    tinymlds.package([tmp_path / "m"], tmp_path / "PKG", tolerate=True)
    with (tmp_path / "PKG" / "DATA_DICTIONARY.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(row["meaning"] and row["where"] and row["type"] for row in rows)
    assert not {"int", "str", "bool"} & {row["type"] for row in rows}
    found = {(row["where"].rsplit("/", 2)[-2], row["name"]) for row in rows if "safetensors" in row["where"]}
    names = {row["name"] for row in rows}
    assert {f"recipe.{name}" for name in Recipe().options()} <= names
    for path in (tmp_path / "m").rglob("*.safetensors"):
        kind = path.parent.name
        assert {(kind, name) for name in TensorFile(path.parent, path.name).tensors} <= found, kind
    description = json.loads((tmp_path / "m" / store.DESCRIPTION).read_text())
    assert description.keys() | {f"tasks[].{key}" for key in description["tasks"][0]} <= names
    lines = lines_of(tmp_path / "m" / store.PROVENANCE)
    known = {row["name"] for row in rows if row["where"].endswith(store.PROVENANCE)}
    assert set().union(*lines) <= known


def test_a_package_is_read_as_one(packaged):
    described = packages.read(packaged)
    assert [entry.name for entry in described.datasets] == ["direct", "direct_modified", "invert", "xor"]
    for entry in described.datasets:
        dataset = tinymlds.open(packaged, entry.name)
        assert (dataset.digest, len(dataset), entry.complete) == (entry.digest, entry.networks, 4)
        assert tinymlds.open(packaged, entry.name, subset=2).manifest[:] == dataset.manifest[:2]


def test_weights_take_hardly_more_than_their_floats(tmp_path):
    tinymlds.train("direct", 40, tmp_path / "direct", workers=1, **EASY)
    tinymlds.package([tmp_path / "direct"], tmp_path / "PKG", tolerate=True)
    size = (tmp_path / "PKG" / "direct" / "full" / "networks" / "direct-00000.safetensors").stat().st_size
    assert size <= 1.02 * 40 * 4364 * 4


def test_without_pyarrow_there_is_no_parquet(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    tinymlds.train("xor", 1, tmp_path / "xor", workers=1, **EASY)
    tinymlds.package([tmp_path / "xor"], tmp_path / "PKG", tolerate=True)
    assert not (tmp_path / "PKG" / "manifest.parquet").exists()
    assert tinymlds.verify(tmp_path / "PKG").ok


def test_the_command(learned, tmp_path):
    made = run_cli(
        "package", learned / "xor", "--out", tmp_path / "PKG", "--subsets", "1,3", "--author", "A", "--author", "B"
    )
    assert made.returncode == 0, made.stderr
    assert "4 networks, 4 complete and audited" in made.stdout
    assert '  - name: "A"\n  - name: "B"' in (tmp_path / "PKG" / "CITATION.cff").read_text()
    checked = run_cli("verify", tmp_path / "PKG")
    assert (checked.returncode, checked.stdout.startswith("ok: ")) == (0, True), checked.stdout
    again = run_cli("package", learned / "xor", "--out", tmp_path / "PKG")
    assert (again.returncode, "exists" in again.stderr) == (2, True)
    shown = run_cli("package", learned / "xor", "--out", tmp_path / "json", "--json")
    assert json.loads(shown.stdout)["digests"] == {"xor": tinymlds.open(learned / "xor").digest}
