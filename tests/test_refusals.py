"""What the command line refuses: one clear line on stderr, the right exit code, and nothing lost."""

import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from running import SMALL, cli_command, contents, refused, run_cli

import tinymlds
from tinymlds.dataset import reader, schema, store
from tinymlds.dataset.journal import Entry, Journal
from tinymlds.spec import Recipe, Setting, Spec, recipe_with
from tinymlds.training import backends
from tinymlds.training.loop import train_networks


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sealed") / "xor"
    tinymlds.train("xor", 6, folder, workers=1, **SMALL)
    return folder


@pytest.fixture
def folder(sealed, tmp_path):
    return shutil.copytree(sealed, tmp_path / "xor")


TRAIN = ("train", "--machine", "xor", "--workers", 1, "-q", "--out")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--machine", "xorr", "--count", 6), ("xorr", "eightbit, direct, invert, xor, parity")),
        (("--machine", "xor", "--count", -3), ("count", "-3")),
        (("--machine", "xor", "--count", 0), ("count", "0")),
        (("--machine", "xor", "--count", 6, "--workers", 0), ("workers",)),
        (("--machine", "xor", "--count", 6, "--backend", "tpu"), ("tpu", "cpu")),
        (("--machine", "xor", "--count", 6, "--batch", 100), ("batch", "multiple of 16")),
        (("--machine", "xor", "--count", 6, "--train-sequences", 100), ("train_sequences", "multiple of batch")),
        (("--machine", "xor", "--count", 6, "--head-activation", "gelu"), ("head_activation", "none, tanh, relu")),
        (("--machine", "xor", "--count", 6, "--lr", "nan"), ("lr",)),
        (("--machine", "xor", "--count", 6, "--seed", -1), ("seed",)),
    ],
)
def test_wrong_arguments_make_no_folder(tmp_path, arguments, words):
    refused(run_cli("train", *arguments, "--out", tmp_path / "new"), 2, *words)
    assert not (tmp_path / "new").exists()


def test_typer_itself_refuses_what_is_no_number(tmp_path):
    result = run_cli("train", "--machine", "xor", "--count", "many", "--out", tmp_path / "new")
    assert (result.returncode, "Traceback" in result.stderr) == (2, False)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--count", 6, "--lr", 0.01), "lr"),
        (("--count", 6, "--seed", 5), "seed"),
        (("--count", 5), "shrink"),
        (("--count", 7, "--threshold", 0.5), "threshold"),
    ],
)
def test_a_folder_of_another_spec(folder, arguments, word):
    before = contents(folder)
    refused(run_cli(*TRAIN, folder, *arguments), 2, word, str(folder))
    assert contents(folder) == before


def test_a_folder_of_another_machine(folder):
    before = contents(folder)
    refused(run_cli("train", "--machine", "parity", "--count", 6, "--out", folder), 2, "parity", "xor")
    assert contents(folder) == before


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("mine")
    refused(run_cli(*TRAIN, tmp_path / "file", "--count", 1), 2, "file")
    refused(run_cli(*TRAIN, tmp_path / "file" / "below", "--count", 1), 1, "cannot create", "file", "File exists")
    refused(run_cli(*TRAIN, "/proc/tinymlds", "--count", 1), 1, "cannot create", "/proc/tinymlds")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_with_other_things_in_it(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    refused(run_cli(*TRAIN, tmp_path, "--count", 1), 2, "not empty")
    refused(run_cli("generate", "--machine", "xor", "--out", tmp_path), 2, "not empty")
    assert contents(tmp_path).keys() == {"thesis.txt"}


@pytest.mark.parametrize(
    ("name", "command"), [(store.MANIFEST, "inspect"), (store.DESCRIPTION, "status"), (store.MANIFEST, "train")]
)
def test_a_damaged_description_or_manifest_is_refused(folder, name, command):
    path = folder / name
    path.write_bytes(path.read_bytes().replace(b"xor", b"xro", 1))
    before = contents(folder)
    result = run_cli(*TRAIN, folder, "--count", 9) if command == "train" else run_cli(command, folder)
    refused(result, 1, name)
    assert contents(folder) == before


def test_growing_refuses_a_damaged_shard(folder):
    path = folder / "networks" / "xor-00000.safetensors"
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    before = contents(folder)
    refused(run_cli(*TRAIN, folder, "--count", 9), 1, "xor-00000.safetensors")
    assert contents(folder) == before


def test_a_damaged_journal_is_refused(tmp_path):
    (tmp_path / store.JOURNAL).write_bytes(b"not a database, but long enough to look like a file" * 100)
    before = contents(tmp_path)
    refused(run_cli(*TRAIN, tmp_path, "--count", 1), 1, store.JOURNAL)
    refused(run_cli("status", tmp_path), 1, store.JOURNAL)
    assert contents(tmp_path) == before


@pytest.fixture
def unsealed(tmp_path):
    """A folder whose journal has six networks, and a spec that asks for more."""
    recipe = recipe_with(Recipe(), SMALL)
    journal = Journal.create(tmp_path, Spec((("xor", 8),), 0, recipe), {}, [], {1: {}})
    outcomes = train_networks(backends.load("cpu"), Setting("xor", 0, recipe), range(6))
    journal.add([Entry("xor", 1, outcome, 0.0) for outcome in outcomes])
    journal.close()
    return tmp_path


def test_damage_anywhere_in_a_journal_is_found_or_harmless(unsealed, tmp_path_factory):
    """Every damaged copy is refused with one line, or becomes the dataset that the intact one becomes."""
    draw = random.Random(11)
    print("seed 11")
    intact = (unsealed / store.JOURNAL).read_bytes()
    digest = tinymlds.train("xor", 8, shutil.copytree(unsealed, tmp_path_factory.mktemp("a") / "x"), workers=1).digest
    refusals = []
    for _ in range(60):
        copy = shutil.copytree(unsealed, tmp_path_factory.mktemp("damaged") / "x")
        damaged = bytearray(intact)
        start = draw.randrange(len(damaged))
        damaged[start : start + draw.choice([1, 1, 1, 100, 4096])] = b""
        damaged = bytearray(intact[:start] + bytes(len(intact) - len(damaged)) + damaged[start:])
        (copy / store.JOURNAL).write_bytes(damaged)
        try:
            found = tinymlds.train("xor", 8, copy, workers=1).digest
        except tinymlds.DatasetError as error:
            refusals.append(str(error))
        else:
            assert found == digest
    assert len(refusals) > 10
    assert all(store.JOURNAL in message for message in refusals)


def test_a_folder_in_place_of_the_journal(tmp_path):
    (tmp_path / store.JOURNAL).mkdir()
    refused(run_cli(*TRAIN, tmp_path, "--count", 1), 1, store.JOURNAL)


def write_description(folder, description):
    """Put another description into a dataset, with the right hashes."""
    sums = reader.read_sums(folder)
    sums[store.DESCRIPTION] = store.commit(folder / store.DESCRIPTION, (json.dumps(description) + "\n").encode())
    store.commit_sums(folder, sums)


def test_a_description_must_be_whole(folder):
    description = json.loads((folder / store.DESCRIPTION).read_text())
    recipe = description["recipe"]
    for change, word in (
        ({"recipe": {key: value for key, value in recipe.items() if key != "patience"}}, "lacks patience"),
        ({"recipe": {**recipe, "hidden": 13}}, "hidden"),
        ({"tasks": description["tasks"] * 2}, "twice"),
    ):
        write_description(folder, {**description, **change})
        refused(run_cli("inspect", folder), 2, store.DESCRIPTION, word)


@pytest.mark.parametrize(("key", "value"), [("epochs", -1), ("split", "exam"), ("checkpoints", -1)])
def test_rows_with_values_that_no_network_has(folder, key, value):
    rows = [json.loads(line) for line in (folder / store.MANIFEST).read_text().splitlines()]
    rows[2][key] = value
    sums = reader.read_sums(folder)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    sums[store.MANIFEST] = store.commit(folder / store.MANIFEST, text.encode())
    store.commit_sums(folder, sums)
    with pytest.raises(tinymlds.DatasetError, match="xor 2"):
        tinymlds.open(folder)


@pytest.mark.parametrize(
    ("changes", "word"),
    [({"lr": 1e39}, "lr"), ({"lr": 10**400}, "lr"), ({"hidden": 10**400}, "hidden"), ({"workers": "2"}, "workers")],
)
def test_numbers_beyond_all_bounds(tmp_path, changes, word):
    with pytest.raises(tinymlds.UsageError, match=word):
        tinymlds.train("xor", 1, tmp_path / "new", **changes)
    assert not (tmp_path / "new").exists()


def test_a_name_that_no_folder_can_have(tmp_path):
    refused(run_cli(*TRAIN, tmp_path / ("x" * 300), "--count", 1), 2, "name of a folder")


def test_a_network_is_found_by_task_and_index(folder):
    dataset = tinymlds.open(folder)
    for key in ("xor", ("xor",), ("xor", "1"), ("xor", 1, 2)):
        with pytest.raises(KeyError, match="task and index"):
            dataset[key]
    with pytest.raises(tinymlds.UsageError, match="array of numbers"):
        dataset["xor", 0].forward([[[1.0] * 9], [[1.0] * 8]])


def test_a_generation_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*_):
        raise tinymlds.TinymldsError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(schema, "describe", full)  # the tables and sequences are written by then
        with pytest.raises(tinymlds.TinymldsError, match="no space"):
            tinymlds.generate("xor", tmp_path / "new", **SMALL)
    assert list((tmp_path / "new").iterdir()) == []
    tinymlds.generate("xor", tmp_path / "new", **SMALL)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is a device of Linux")
def test_output_to_a_full_device(folder):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(cli_command("inspect", folder), stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    refused(done, 1, "cannot write")


def test_what_is_not_a_dataset(tmp_path):
    for command in ("status", "verify", "inspect"):
        refused(run_cli(command, tmp_path / "nothing"), 1, "nothing")
        refused(run_cli(command, tmp_path), 1, "not a tinymlds dataset")


def test_inspect_names_what_there_is(folder):
    refused(run_cli("inspect", folder, "parity"), 2, "no task 'parity'", "xor")
    refused(run_cli("inspect", folder, "xor", 6), 2, "networks 0 to 5")


def test_unfinished_files_of_others_are_left_alone(tmp_path):
    (tmp_path / store.SUMS).write_text("somebody else's")
    (tmp_path / "film.part").write_text("mine")
    before = contents(tmp_path)
    refused(run_cli(*TRAIN, tmp_path, "--count", 1), 1, store.SUMS)
    assert contents(tmp_path) == before


def test_growing_refuses_damaged_provenance(folder):
    path = folder / store.PROVENANCE
    path.write_bytes(path.read_bytes().replace(b'"run"', b'"rum"', 1))
    before = contents(folder)
    refused(run_cli(*TRAIN, folder, "--count", 9), 1, store.PROVENANCE)
    assert contents(folder) == before
