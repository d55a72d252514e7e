"""Datasets of packages: what a package has is opened by name, and one that is damaged or leads elsewhere is refused."""

import hashlib
import json
import os

import pytest
from forging import make
from packing import package, write
from running import contents, refused, run_cli

import tinymlds
from tinymlds.dataset import packages, store


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A dataset of two networks, and the same with one."""
    parent = tmp_path_factory.mktemp("made")
    return make(parent / "xor"), make(parent / "fewer", count=1)


@pytest.fixture
def one(made, tmp_path):
    return package(tmp_path / "one", made[0], subsets=made[1:])


@pytest.fixture
def two(made, tmp_path):
    return package(tmp_path / "two", *made)


def test_a_dataset_of_a_package(one, two, made):
    whole, smaller = (tinymlds.open(folder).digest for folder in made)
    assert tinymlds.open(one).digest == tinymlds.open(one, "xor").digest == whole
    assert tinymlds.open(one, subset=1).digest == tinymlds.open(str(one), "xor", 1).digest == smaller
    assert tinymlds.open(one / "xor" / "1").digest == smaller
    assert tinymlds.open(two, "fewer").digest == smaller
    assert tinymlds.status(two, "xor").digest == whole
    with pytest.raises(tinymlds.UsageError, match="several datasets, xor, fewer; name one"):
        tinymlds.open(two)
    with pytest.raises(tinymlds.UsageError, match="no dataset 'parity'; it has xor, fewer"):
        tinymlds.open(two, "parity")
    with pytest.raises(tinymlds.UsageError, match="no subset 5; its subsets: 1"):
        tinymlds.open(one, subset=5)
    with pytest.raises(tinymlds.UsageError, match="no subset 1; its subsets: none"):
        tinymlds.open(two, "fewer", subset=1)
    with pytest.raises(tinymlds.UsageError, match="not a package"):
        tinymlds.open(made[0], "xor")


def test_commands_take_packages(one, two, made, tmp_path):
    for folder, options in ((one, ("--subset", 1)), (two, ("--name", "fewer"))):
        for command in ("status", "inspect"):
            shown = run_cli(command, folder, *options, "--json")
            assert json.loads(shown.stdout)["digest"] == tinymlds.open(made[1]).digest
        out = tmp_path / f"{folder.name}.npz"
        shown = run_cli("export", folder, "xor", 0, "--out", out, "--json", *options)
        assert shown.returncode == 0, shown.stderr
        said = json.loads(shown.stdout)
        data = out.read_bytes()
        assert said["files"] == [{"name": str(out), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}]
        assert said["weights_sha256"] == tinymlds.open(made[1])["xor", 0].row["weights_sha256"]
    refused(run_cli("status", two), 2, "name one of them")
    refused(run_cli("inspect", one, "--subset", 7), 2, "no subset 7")
    refused(run_cli("export", two, "xor", 0, "--out", tmp_path / "x.npz", "--name", "no"), 2, "no dataset 'no'")
    before = contents(one)
    (one / packages.MARKER).write_text("{}\n")
    refused(run_cli("inspect", one), 1, packages.MARKER)
    assert {name for name, digest in contents(one).items() if before[name] != digest} == {packages.MARKER}


def test_an_unfinished_run_is_named(tmp_path):
    place = make(tmp_path / "xor")
    (place / store.JOURNAL).write_bytes(b"")
    (place / store.SUMS).unlink()
    with pytest.raises(tinymlds.DatasetError, match="not finished; the command that started it goes on"):
        tinymlds.open(place)


def dataset_entry(**values):
    return lambda about: about["datasets"][0].update(values)


def subset_entry(**values):
    return lambda about: about["datasets"][0]["subsets"][0].update(values)


DAMAGE = {
    "another kind": lambda about: about.update(kind="dataset"),
    "a format that is true": lambda about: about.update(format=True),
    "a format that is a float": lambda about: about.update(format=1.0),
    "a key too many": lambda about: about.update(more=1),
    "a key too few": lambda about: about.pop("license"),
    "a title that is a number": lambda about: about.update(title=5),
    "no datasets": lambda about: about.update(datasets=[]),
    "datasets that are no list": lambda about: about.update(datasets={}),
    "a dataset that is a list": lambda about: about.update(datasets=[[]]),
    "a dataset twice": lambda about: about["datasets"].append(about["datasets"][0]),
    "a name that leads elsewhere": dataset_entry(name="../xor"),
    "an empty name": dataset_entry(name=""),
    "a name of lines": dataset_entry(name="xor\n"),
    "a folder above": dataset_entry(folder="../xor"),
    "an absolute folder": dataset_entry(folder="/etc"),
    "a hidden folder": dataset_entry(folder=".git"),
    "a folder with an empty part": dataset_entry(folder="xor//full"),
    "a folder of null bytes": dataset_entry(folder="xor/\0"),
    "a folder that is a list": dataset_entry(folder=["xor"]),
    "a folder that is not there": dataset_entry(folder="xor/none"),
    "a folder that is a file": dataset_entry(folder=packages.MARKER),
    "a folder that is another": dataset_entry(folder="xor/1"),
    "a folder that is no dataset": dataset_entry(folder="xor"),
    "a digest of another": dataset_entry(digest="0" * 64),
    "a digest in capitals": dataset_entry(digest="A" * 64),
    "more complete than there are": dataset_entry(complete=3),
    "fewer than none complete": dataset_entry(complete=-1),
    "networks that are true": dataset_entry(networks=True),
    "a subset of none": subset_entry(count=0),
    "a subset with more": subset_entry(more=1),
    "a subset elsewhere": subset_entry(folder="../1"),
    "a subset twice": lambda about: about["datasets"][0]["subsets"].append(about["datasets"][0]["subsets"][0]),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_package_is_refused(one, name):
    about = json.loads((one / packages.MARKER).read_text())
    DAMAGE[name](about)
    write(one, about)
    with pytest.raises(tinymlds.DatasetError) as found:
        tinymlds.open(one)
    assert str(found.value).isprintable()
    assert str(one) in str(found.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(":", ": "),
        lambda text: text[:-1],
        lambda text: text + "\n",
        lambda text: "\ufeff" + text,
        lambda text: text.replace("{", '{"kind":"package",', 1),
        lambda text: text.replace("Two", "\\u0054wo"),
        lambda text: text.replace('"format":1', '"format":NaN'),
        lambda _: "[" * 100_000,
        lambda text: text.replace("Two", "T" * (1 << 20)),
        lambda text: text.replace('"format":1', '"format":1' + "0" * 10_000),
        lambda _: "[]\n",
        lambda _: "",
    ],
)
def test_one_spelling_of_a_package(one, change):
    path = one / packages.MARKER
    path.write_text(change(path.read_text()))
    with pytest.raises(tinymlds.DatasetError, match="is damaged"):
        tinymlds.open(one)


def test_a_package_of_a_later_format(one):
    about = json.loads((one / packages.MARKER).read_text())
    write(one, {**about, "format": 2, "more": []})
    with pytest.raises(tinymlds.UsageError, match="package format 2, and this version of tinymlds knows 1"):
        tinymlds.open(one)


@pytest.mark.skipif(os.name == "nt", reason="links and pipes of POSIX")
@pytest.mark.parametrize("name", [packages.MARKER, "xor", "xor/full", "xor/full/manifest.jsonl"])
def test_no_link_is_followed_in_a_package(one, tmp_path, name):
    path, away = one / name, tmp_path / "away"
    path.rename(away)
    path.symlink_to(away)
    with pytest.raises(tinymlds.DatasetError, match="no links"):
        tinymlds.open(one)
    if away.is_file():
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(tinymlds.DatasetError, match="no links or devices"):
            tinymlds.open(one)
