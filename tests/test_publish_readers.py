"""What others read: the card, its snippets, Hugging Face datasets, Croissant, Parquet; and `verify` of a package."""

import json
import os
import re
import shutil
import subprocess
import sys
from statistics import median

import pytest
from forging import forge
from running import EASY, ROOT, lines_of, run_cli

import tinymlds
from tinymlds.dataset import reader, store
from tinymlds.dataset.commands import train_command
from tinymlds.dataset.manifest import SPLITS
from tinymlds.publish.sections import diagram
from tinymlds.spec import Recipe, Setting, Spec
from tinymlds.tasks.catalog import load
from tinymlds.tasks.machines import MACHINES


def test_hugging_face_reads_the_same_rows(packaged, tmp_path):
    """In a process of its own, offline: the library warns of its own accord, and keeps caches."""
    pytest.importorskip("datasets", reason="needs datasets")
    code = (
        "import json, sys, datasets\n"
        "package, out = sys.argv[1:]\n"
        "found = {name: datasets.load_dataset(package, name=name) for name in ('by_index', 'by_task')}\n"
        "found['files'] = datasets.load_dataset('json', data_files={'train': package + '/splits/by_index/train.jsonl'})\n"
        "rows = {name: {side: list(rows) for side, rows in sides.items()} for name, sides in found.items()}\n"
        "json.dump(rows, open(out, 'w'))\n"
    )
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(packaged), str(tmp_path / "rows.json")],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), **offline},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())
    for scheme in ("by_index", "by_task"):
        for side in SPLITS:
            assert rows[scheme][side] == lines_of(packaged / "splits" / scheme / f"{side}.jsonl")
    assert rows["files"]["train"] == rows["by_index"]["train"]


WEIGHTS = """
import sys, datasets, numpy, tinymlds
package, = sys.argv[1:]
found = datasets.load_dataset(package, data_dir="weights")
for side, rows in found.items():
    wanted = [row for row in datasets.load_dataset(package, name="by_index")[side]]
    for row, plain in zip(rows, wanted, strict=True):
        vector = numpy.asarray(row.pop("weights"), numpy.float32)
        assert row == plain
        assert numpy.array_equal(vector, tinymlds.open(package, row["dataset"])[row["task"], row["index"]].weights)
print({side: len(rows) for side, rows in found.items()})
"""


def test_rows_with_weights(learned, tmp_path):
    pytest.importorskip("datasets", reason="needs datasets")
    made = tinymlds.package(sorted(learned.iterdir())[:2], tmp_path / "PKG", weights=True)
    code = f"import os; os.environ.update(HF_HUB_OFFLINE='1', HF_HOME={str(tmp_path / 'hf')!r})\n{WEIGHTS}"
    done = subprocess.run([sys.executable, "-c", code, str(made.folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sum(eval(done.stdout).values()) == made.complete
    assert set(eval(done.stdout)) == set(SPLITS) - set(made.empty)
    assert tinymlds.verify(made.folder).ok
    assert 'data_dir="weights"' in (made.folder / "README.md").read_text()


def test_an_empty_split_is_named_and_weights_are_asked_for(tmp_path):
    tinymlds.train("xor", 3, tmp_path / "xor", workers=1, **EASY)
    done = run_cli("package", tmp_path / "xor", "--out", tmp_path / "PKG", "--tolerate")
    assert done.returncode == 0, done.stderr
    assert "warning: no network is in splits/by_index/test; a larger --count fills it" in done.stdout
    assert not (tmp_path / "PKG" / "weights").exists()


def test_parquet_holds_all_rows(packaged):
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    rows = parquet.read_table(packaged / "manifest.parquet").to_pylist()
    expected = []
    for name in ("direct", "direct_modified", "invert", "xor"):
        label = {"base": name.removesuffix("_modified"), "modified": name == "direct_modified"}
        expected += [{**row, "dataset": name, **label, "passed": True} for row in tinymlds.open(packaged, name).manifest]
    assert rows == expected


def test_croissant_is_valid_and_gives_the_rows(packaged):
    """In a process of its own, as its dependencies warn."""
    pytest.importorskip("mlcroissant", reason="needs mlcroissant")
    code = (
        "import sys, json, mlcroissant\n"
        "dataset = mlcroissant.Dataset(jsonld=sys.argv[1])\n"
        "issues = dataset.metadata.ctx.issues\n"
        "text = lambda value: value.decode() if isinstance(value, bytes) else value\n"
        "rows = [{key.split('/')[-1]: text(value) for key, value in record.items()}\n"
        "        for record in dataset.records('by_index-train')]\n"
        "print(json.dumps([sorted(issues.errors), sorted(issues.warnings), rows], default=float))\n"
    )
    command_line = [sys.executable, "-W", "ignore", "-c", code, str(packaged / "croissant.json")]
    done = subprocess.run(command_line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    errors, warnings, rows = json.loads(done.stdout)
    assert (errors, warnings) == ([], [])
    wanted = lines_of(packaged / "splits" / "by_index" / "train.jsonl")
    for row, right in zip(rows, wanted, strict=True):
        for key, value in right.items():
            if isinstance(value, float):  # pandas' reader of JSON is one unit in the last place off
                assert row[key] == pytest.approx(value, rel=1e-15, abs=0)
            elif value not in (None, ""):
                assert row[key] == value


def test_croissant_names_the_hash_of_every_file(packaged):
    page = json.loads((packaged / "croissant.json").read_text())
    files = [entry for entry in page["distribution"] if entry["@type"] == "cr:FileObject"]
    assert len(files) == 4 * 2 + 2 * 3
    for entry in files:
        assert entry["sha256"] == reader.file_sha256(packaged, entry["contentUrl"])
    for entry in page["distribution"]:
        assert "includes" not in entry or list(packaged.glob(entry["includes"])), entry
    assert (page["datePublished"], page["alternateName"]) == ("2026-11-25", 'Four "tasks": a\\b')


def test_where_the_software_is_found_is_said(packaged):
    yaml = pytest.importorskip("yaml", reason="needs pyyaml")
    card = (packaged / "README.md").read_text()
    assert card.count("[its repository](<https://example.org/a_b>)") == 2
    assert f"note = {{Made with tinymlds {tinymlds.__version__}, \\url{{https://example.org/a_b}}}}" in card
    software = yaml.safe_load((packaged / "CITATION.cff").read_text())["references"][0]
    assert (software["title"], software["url"]) == ("tinymlds", "https://example.org/a_b")
    based = json.loads((packaged / "croissant.json").read_text())["isBasedOn"]
    assert (based["name"], based["url"]) == ("tinymlds", "https://example.org/a_b")


def test_the_header_and_the_citation_are_yaml(packaged):
    yaml = pytest.importorskip("yaml", reason="needs pyyaml")
    header = yaml.safe_load((packaged / "README.md").read_text().split("---\n")[1])
    assert (header["pretty_name"], header["license"]) == ('Four "tasks": a\\b', "cc-by-sa-4.0")
    assert [config["config_name"] for config in header["configs"]] == ["by_index", "by_task"]
    for config in header["configs"]:
        assert all((packaged / entry["path"]).exists() for entry in config["data_files"])
    citation = yaml.safe_load((packaged / "CITATION.cff").read_text())
    assert (citation["type"], citation["authors"]) == ("dataset", [{"name": "Ö. N'e"}])
    papers = [f"https://arxiv.org/abs/{number}" for number in ("2104.10555", "1805.07869")]
    assert [reference["url"] for reference in citation["references"][1:]] == papers
    assert (citation["date-released"], citation["license"]) == ("2026-11-25", "CC-BY-SA-4.0")


ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


def snippets(package):
    return re.findall(r"```python\n(.*?)```", (package / "README.md").read_text(), re.DOTALL)


def run_snippet(code, package, home):
    """Unchanged, offline, in the package's folder."""
    environment = ENVIRONMENT | {"HF_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=package, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("number", range(5))
def test_the_snippets_of_the_card_run(packaged, tmp_path, number):
    found = snippets(packaged)
    assert len(found) == 5
    for module in ("torch", "datasets"):
        if f"import {module}" in found[number] or f"from {module} " in found[number]:
            pytest.importorskip(module, reason=f"needs {module}")
    printed = run_snippet(found[number], packaged, tmp_path)
    if "WeightDataset" in found[number]:
        assert found[number].count("\n") < 20
        assert re.fullmatch(r"test accuracy [01]\.\d\d, by chance 1\.00\n", printed)  # of one task


def test_the_snippets_of_a_package_without_rows_for_training(tmp_path):
    """A dataset of one network, which seed 0 puts into validation."""
    for module in ("torch", "datasets"):
        pytest.importorskip(module, reason=f"needs {module}")
    tinymlds.train("direct", 1, tmp_path / "one", workers=1, train_sequences=16384, validation_sequences=512)
    tinymlds.package([tmp_path / "one"], tmp_path / "PKG")
    assert not (tmp_path / "PKG" / "splits" / "by_index" / "train.jsonl").read_text()
    found = snippets(tmp_path / "PKG")
    assert len(found) == 4
    assert not any("WeightDataset" in code for code in found)
    for code in found:
        run_snippet(code, tmp_path / "PKG", tmp_path)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_the_snippet_of_a_network_with_activations(tmp_path, activation):
    """Up to the outputs, which have to be those of the module of tinymlds; the network has learned nothing."""
    pytest.importorskip("torch", reason="needs PyTorch")
    tinymlds.train("xor", 1, tmp_path / "xor", workers=1, **EASY, head_activation=activation)
    tinymlds.package([tmp_path / "xor"], tmp_path / "PKG", tolerate=True)
    (tmp_path / "PKG" / "splits" / "by_index" / "train.jsonl").write_text(
        json.dumps({**tinymlds.open(tmp_path / "xor")["xor", 0].row, "dataset": "xor"}) + "\n"
    )
    code = snippets(tmp_path / "PKG")[1].removesuffix("assert agree > 0.98\n")
    code += "import tinymlds\nmodule = tinymlds.torch.module(tinymlds.open('.')['xor', 0])\n"
    run_snippet(code + "assert torch.equal(y, module(bits(inputs[symbols], 9).float()))\n", tmp_path / "PKG", tmp_path)


def test_every_placeholder_of_the_card_is_filled(packaged):
    text = (packaged / "README.md").read_text()
    assert not re.search(r"\$[a-z_]+", text)
    for name in ("direct", "direct_modified", "invert", "xor"):
        assert tinymlds.open(packaged, name).digest in text
        assert f"`{name}/full/data/{name}.dot`" in text
        assert tinymlds.open(packaged, name, subset=2).digest in text
    assert all((f"`{name}`" in text) == (name not in ("states", "edits", "family")) for name in Recipe().options())
    assert "Transducers" not in text


def test_the_card_says_what_the_networks_can_do(packaged):
    text = (packaged / "README.md").read_text()
    rows = tinymlds.open(packaged, "xor").manifest[:]
    epochs, lengths = ([row[name] for row in rows] for name in ("epochs", "long_accuracy"))
    assert f"| {median(epochs):g} | " in text
    assert f"| {median(lengths):.1%}, least {min(lengths):.1%} |" in text
    assert "| `xor/2` | 1 | 2 | 2 | " in text
    assert "| `xor` | SimpleXORMachine | bit 0 xor bit 1 | 256 (4) |" in text
    assert "as `direct`; after set 7, clear 7, set 7 the next 4 outputs are inverted | 1792 (14) |" in text
    assert "--out xor-again" in text
    assert not re.search(r"\b1 groups|80/10/10", text)


def test_the_card_of_transducers_speaks_of_no_machine(tmp_path):
    tinymlds.train(only=7, count=1, out=tmp_path / "t", workers=1, **EASY)
    tinymlds.package([tmp_path / "t"], tmp_path / "PKG", tolerate=True)
    text = (tmp_path / "PKG" / "README.md").read_text()
    assert "Transducers are random machines" in text
    for words in ("eightbit", "trigger_key", "register", "planted keys", "by_family", "`DATASET/N/`"):
        assert words not in text
    dictionary = (tmp_path / "PKG" / "DATA_DICTIONARY.csv").read_text()
    for words in ("checkpoints/", "table.triggered", "tasks[].family"):
        assert words not in dictionary


@pytest.mark.parametrize(
    ("tasks", "recipe", "text"),
    [
        (("xor",), Recipe(), "tinymlds train --machine xor --count 3 --seed 7"),
        (MACHINES, Recipe.of(matched=True), "--dataset ds1 --count 3 --seed 7 --matched"),
        (("transducer_000", "transducer_001"), Recipe.of(edits=2), "--transducers 2 --count 3 --seed 7 --edits 2"),
        (("transducer_012",), Recipe(), "--only 12 "),
        (("xor_modified",), Recipe.of(trigger_key="set 1, set 2"), "--trigger-key 'set 1, set 2'"),
    ],
)
def test_the_command_that_makes_it_again(tasks, recipe, text):
    assert text in train_command(Spec(tuple((task, 3) for task in tasks), 7, recipe, ()))
    assert train_command(Spec(((tasks[0], 3),), 7, recipe, (0, 2))).endswith("--checkpoints 0,2")


def test_pictures():
    assert diagram(load(Setting("parity", 0, Recipe())).table.minimise()) is None
    assert diagram(load(Setting("direct", 0, Recipe())).table.minimise()).count("-->") == 5
    assert diagram(load(Setting("transducer_003", 0, Recipe())).table.minimise()).count("((") == 9


# ------------------------------------------------------------------ verify


@pytest.fixture
def copy(packaged, tmp_path):
    shutil.copytree(packaged, tmp_path / "PKG")
    return tmp_path / "PKG"


def test_a_package_verifies(packaged):
    found = tinymlds.verify(packaged, workers=2)
    assert (found.ok, found.networks, found.losses_recomputed) == (True, 16, 16)
    assert found.digests == {name: tinymlds.open(packaged, name).digest for name in found.digests}
    assert len(found.digests) == 4
    with pytest.raises(tinymlds.UsageError, match="one of its datasets"):
        tinymlds.verify(packaged, retrain=1)


def test_changed_missing_and_extra_files_are_named(copy):
    (copy / "README.md").write_text("All mine.")
    (copy / "xor" / "2" / "data" / "xor.dot").unlink()
    (copy / "xor" / "extra").mkdir()
    (copy / "xor" / "extra" / "file").write_text("x")
    (copy / "deep" / "er" / "and" / "deeper").mkdir(parents=True)
    checked = run_cli("verify", copy)
    assert checked.returncode == 1
    assert checked.stdout.endswith("next: fetch the package again\n")
    assert "digest of" not in checked.stdout
    for words in (
        "README.md does not match",
        "xor/2/data/xor.dot",
        "extra/file is not listed",
        "deep/er/and/deeper is not",
    ):
        assert words in checked.stdout, checked.stdout


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("splits/by_index/test.jsonl", lambda data: data.replace(b'"base":"xor"', b'"base":"exo"')),
        ("splits/by_task/train.jsonl", lambda _data: b""),
        ("audit.json", lambda data: data.replace(b'"passed": 4', b'"passed": 3', 1)),
        ("tinymlds.json", lambda data: data.replace(b'"complete":4', b'"complete":3', 1)),
        ("symmetries.json", lambda data: data + b"\n"),
        ("DATA_DICTIONARY.csv", lambda data: data[1:]),
        ("notes.txt", lambda _data: b"hello"),
    ],
)
def test_what_does_not_follow_from_the_datasets_is_found(copy, name, change):
    """Also where somebody has put the right hash beside the wrong bytes."""
    path = copy / name
    before = path.read_bytes() if path.exists() else b""
    assert change(before) != before
    forge(copy, name, change(before))
    problems = tinymlds.verify(copy).problems
    assert any(name in problem for problem in problems), problems


def test_a_file_that_is_left_out_is_missed(copy):
    sums = reader.read_sums(copy)
    del sums["audit.json"]
    (copy / "audit.json").unlink()
    store.commit_sums(copy, sums)
    assert tinymlds.verify(copy).problems == [f"{copy / 'audit.json'} is missing in SHA256SUMS"]


def test_a_subset_of_other_networks_is_found(copy, packaged):
    """The subset of one dataset in the place of another's: true hashes everywhere, but another digest."""
    shutil.rmtree(copy / "xor" / "2")
    shutil.copytree(packaged / "invert" / "2", copy / "xor" / "2")
    sums = {name: digest for name, digest in reader.read_sums(copy).items() if not name.startswith("xor/2/")}
    inner = [path.relative_to(copy).as_posix() for path in (copy / "xor" / "2").rglob("*") if path.is_file()]
    store.commit_sums(copy, sums | {name: reader.file_sha256(copy, name) for name in inner})
    problems = tinymlds.verify(copy).problems
    assert any("xor/2" in problem and "is not what" in problem for problem in problems), problems
    assert any("tinymlds.json" in problem for problem in problems)


def test_a_link_in_a_package_is_not_followed(copy, tmp_path):
    shutil.move(copy / "xor", tmp_path / "elsewhere")
    (copy / "xor").symlink_to(tmp_path / "elsewhere")
    assert any("is not a regular file or folder" in problem for problem in tinymlds.verify(copy).problems)


def test_what_hosts_and_desktops_add_is_passed_over(copy):
    (copy / ".git" / "objects" / "aa").mkdir(parents=True)
    (copy / ".cache" / "huggingface").mkdir(parents=True)
    for name in (".gitattributes", ".DS_Store", "xor/full/.DS_Store", "xor/2/data/.DS_Store", ".git/objects/aa/bb"):
        (copy / name).write_text("x")
    checked = run_cli("verify", copy)
    assert checked.returncode == 0, checked.stdout
    assert checked.stdout.endswith(f"next: tinymlds verify {copy}/direct/full --retrain 59\n")
    again = run_cli("verify", f"{copy}/direct/full", "--retrain", 1)
    assert again.returncode == 0, again.stdout


def test_a_package_without_its_description(copy):
    (copy / "tinymlds.json").unlink()
    checked = run_cli("verify", copy)
    assert checked.returncode == 1
    assert checked.stdout.count("problem: ") == 1
    assert "looks like a package without its tinymlds.json" in checked.stdout
    assert checked.stdout.endswith("next: fetch the package again\n")


def test_a_dataset_without_its_manifest_has_no_digest(copy):
    (copy / "xor" / "full" / store.MANIFEST).unlink()
    found = tinymlds.verify(copy)
    assert not found.ok
    assert "xor" not in found.digests
