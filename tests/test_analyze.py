"""`analyze` on datasets: the same results twice, pairs, networks held out, the command line, refusals."""

import json
import os
import random
import shlex
import warnings

import numpy as np
import pytest
from forging import TINY, make
from running import refused, run_cli
from typer.testing import CliRunner

import tinymlds
from tinymlds.cli import app

pytest.importorskip("sklearn", reason="needs scikit-learn")

from made_up import SHAPE, random_weights

from tinymlds.analysis import experiments, ladder, models
from tinymlds.analysis.points import Wanted, gather

pytestmark = pytest.mark.usefixtures("small_forests")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """xor and its twin, matched, and parity; twelve networks each (of the twin three more), all complete. other: of another
    seed."""
    place = tmp_path_factory.mktemp("analysis")
    common = {"count": 12, "threshold": 10.0, "matched": True}
    make(place / "xor", "xor", **common)
    make(place / "twin", "xor", modified=True, **{**common, "count": 15})
    make(place / "parity", "parity", **common)
    for machine in ("xor", "parity"):
        make(place / f"other-{machine}", machine, seed=1, **common)
    make(place / "parity-twin", "parity", modified=True, **common)
    make(place / "never-direct", "direct", 12)
    make(place / "two", "direct", 2, threshold=10.0)
    make(place / "direct", "direct", 3, threshold=10.0)
    make(place / "shapely", "xor", 12, seed=1, threshold=10.0, matched=True, gru_layers=1)
    make(place / "shapely-parity", "parity", 12, threshold=10.0, matched=True, gru_layers=1)
    make(place / "never-twin", "xor", 12, modified=True, matched=True)
    for optimizer in ("sgd", "lion"):
        make(place / f"xor-{optimizer}", "xor", optimizer=optimizer, **common)
        make(place / f"other-{optimizer}", "xor", seed=1, optimizer=optimizer, **common)
    make(place / "never", "xor", 3)
    make(place / "parity-never", "parity", 3)
    return place


def test_the_graph_network_gives_the_same_on_any_number_of_threads(folders, monkeypatch):
    """Whatever random numbers the process has used up, its weights come from the seed alone."""
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    from tinymlds.analysis import graph

    monkeypatch.setattr(graph, "STEPS", 6)
    monkeypatch.setattr(graph, "EPOCHS", 0)
    monkeypatch.setattr(graph, "_EVERY", 2)
    data, found = [folders / "xor", folders / "parity"], []
    for workers in (1, 2):
        torch.manual_seed(workers)
        found.append(tinymlds.analyze(data, "which-machine", seeds=2, rungs="graph/raw/plain", workers=workers).rows)
    assert found[0] == found[1]
    outputs = []
    for state in (1, 2):
        torch.manual_seed(state)
        network = graph.GraphNetwork(SHAPE, 3)
        graph.draw_parameters(network, 7)
        outputs.append(network(torch.from_numpy(random_weights(0, 2))).detach())
    assert torch.equal(*outputs)


def test_the_same_results_on_any_number_of_threads(folders):
    asked = {"seeds": 3, "rungs": "majority,knn/raw/plain,linear/*/transformed,forest/raw/*,boosting/raw/plain"}
    first, second = (
        tinymlds.analyze([folders / "xor", folders / "parity"], "which-machine", workers=workers, **asked).to_dict()
        for workers in (1, 3)
    )
    assert first.pop("provenance").keys() == second.pop("provenance").keys()
    assert first == second
    for each in first["splits"]:
        assert not set(each["validation"]) & set(each["test"])
    assert first["published"]["score"] == 0.991


def test_matched_pairs(folders):
    found = tinymlds.analyze([folders / "xor", folders / "twin"], "tampered", rungs="linear/raw/plain,forest/raw/equalised")
    (plain, _) = found.rows
    assert plain.classes == ("clean", "tampered")
    assert len(plain.others["pairs_right"]) == 5
    assert found.pairs.startswith("matched pairs: ")
    assert [each["indices"] for each in found.splits] == [12] * 5, "those that both have"
    assert plain.networks["test"] == [2 * len(each["test"]) for each in found.splits]


def test_which_optimizer(folders):
    """Networks of one task by several optimizers, which begin alike; the recipes differ by more, and it says so."""
    asked = [folders / name for name in ("xor", "xor-sgd", "xor-lion", "parity")]
    found = tinymlds.analyze(asked, "which-optimizer", rungs="linear/raw/*,forest/norm/plain")
    rows = {row.rung: row for row in found.rows}
    assert {row.case for row in found.rows} == {"xor"}, "parity has one optimizer"
    plain = rows["linear/raw/plain"]
    assert plain.classes == ("adam", "sgd", "lion")
    assert plain.chance == pytest.approx(1 / 3)
    assert rows["linear/raw/initial"].mean == pytest.approx(1 / 3), "they start from the same weights"
    (note,) = (each for each in plain.notes if each.startswith("the datasets of these networks differ in "))
    assert "lr" in note
    assert "optimizer" not in note.split(" too,")[0].split()
    theirs = [folders / name for name in ("other-xor", "other-sgd", "other-lion")]
    held = tinymlds.analyze(asked[:3], "which-optimizer", rungs="linear/raw/plain", held_out=theirs)
    assert held.rows[0].networks["test"] == [36] * 5
    with pytest.raises(
        tinymlds.UsageError, match="networks of xor of all of these optimizers of the case xor: adam, sgd, lion"
    ):
        tinymlds.analyze(asked[:3], "which-optimizer", rungs="knn", held_out=theirs[:2])
    with pytest.raises(tinymlds.UsageError, match="at least two optimizers with a task in common"):
        tinymlds.analyze([folders / "xor-sgd", folders / "parity"], "which-optimizer")
    with pytest.raises(tinymlds.UsageError, match="both have xor with optimizer adam; give one"):
        tinymlds.analyze([folders / "xor", folders / "other-xor"], "which-optimizer")


def test_networks_of_another_seed_are_held_out(folders):
    ours, theirs = ([folders / f"{prefix}{name}" for name in ("xor", "parity")] for prefix in ("", "other-"))
    found = tinymlds.analyze(ours, "which-machine", rungs="linear/raw/*", held_out=theirs)
    rows = {row.rung: row for row in found.rows}
    assert rows["linear/raw/plain"].networks["test"] == [24] * 5
    assert rows["linear/raw/equalised"].status == "skipped"
    assert "--held-out" in rows["linear/raw/plain"].command
    with pytest.raises(tinymlds.UsageError, match="a seed of their own"):
        tinymlds.analyze(ours, "which-machine", held_out=ours)
    with pytest.raises(tinymlds.UsageError, match="have not the tasks"):
        tinymlds.analyze([*ours, folders / "direct"], "which-machine", rungs="knn", held_out=theirs)


def test_matched_pairs_that_are_held_out(folders, tmp_path):
    for name, modified in (("xor", False), ("twin", True)):
        make(tmp_path / name, "xor", 4, modified=modified, seed=1, threshold=10.0, matched=True)
    theirs = [tmp_path / "xor", tmp_path / "twin"]
    found = tinymlds.analyze(
        [folders / "xor", folders / "twin"], "tampered", seeds=2, rungs="majority,knn/raw/plain", held_out=theirs
    )
    majority, plain = found.rows
    assert majority.others["pairs_right"] == [0.5, 0.5], "the same answer for both of a pair"
    assert all(share * 4 % 0.5 == 0 for share in plain.others["pairs_right"]), "of four pairs"


def test_the_command_line_and_the_command_of_a_row(folders, tmp_path, monkeypatch):
    monkeypatch.chdir(folders)
    out = tmp_path / "found.json"
    asked = ["analyze", "xor", "parity", "--experiment", "which-machine", "--seeds", "3", "--workers", "1"]
    result = CliRunner().invoke(app, [*asked, "--rungs", "majority,knn/raw/plain,forest/epochs/plain", "--out", str(out)])
    assert result.exit_code == 0, result.stderr
    assert "all: knn/raw/plain" in result.stderr
    assert "a guess gets 0.500" in result.stdout
    assert "published: 99.1% accuracy" in result.stdout
    assert result.stdout.splitlines()[-1] == f"next: tinymlds report xor --analysis {out}"
    found = json.loads(out.read_text())
    assert out.read_text() == json.dumps(found, sort_keys=True, separators=(",", ":")) + "\n"
    (row,) = [row for row in found["rows"] if row["rung"] == "knn/raw/plain"]
    assert row["datasets"] == {name: tinymlds.open(folders / name).digest for name in ("xor", "parity")}
    again = CliRunner().invoke(app, [*shlex.split(row["command"])[1:], "--json"])
    assert json.loads(again.stdout)["rows"] == [row]


def test_what_is_not_matched_says_so(folders, tmp_path):
    make(tmp_path / "xor", "xor", 12, threshold=10.0)
    result = CliRunner().invoke(
        app, ["analyze", str(tmp_path / "xor"), str(folders / "twin"), "--experiment", "tampered", "--rungs", "majority"]
    )
    assert result.exit_code == 0, result.stderr
    assert "not matched: machines and twins differ" in result.stdout
    assert "pairs_right" not in result.stdout
    last = result.stdout.splitlines()[-1]
    assert last.startswith("next: tinymlds analyze ")
    assert last.endswith(" --rungs majority --out tampered.json")


def test_what_differs_beside_the_tasks_is_named(folders, tmp_path):
    """Both are matched, and of one seed; yet they are no pairs."""
    make(tmp_path / "twin", "xor", 12, modified=True, threshold=5.0, matched=True)
    found = tinymlds.analyze([folders / "xor", tmp_path / "twin"], "tampered", seeds=2, rungs="majority")
    (row,) = found.rows
    assert "pairs_right" not in row.others
    assert row.notes == ("machines and twins differ in threshold too, which scores may be about",)
    assert found.pairs.startswith("not matched: machines and twins differ in threshold too, which")
    assert [each["differs"] for each in found.datasets] == [[], ["threshold"]]
    theirs = [folders / "other-xor", folders / "other-parity"]
    found = tinymlds.analyze(
        [folders / "xor", folders / "parity"], "which-machine", seeds=2, rungs="knn/raw/plain", held_out=theirs
    )
    assert found.rows[0].notes == ()
    make(tmp_path / "other", "xor", 12, threshold=5.0, matched=True, seed=1)
    theirs[0] = tmp_path / "other"
    found = tinymlds.analyze(
        [folders / "xor", folders / "parity"], "which-machine", seeds=2, rungs="knn/raw/plain", held_out=theirs
    )
    assert found.rows[0].notes == ("networks held out differ from those trained on in threshold",)


def test_a_class_without_complete_networks_is_left_out(folders):
    """Before labels are numbered, so that two classes are told apart by a guess with 0.5; no class, no error."""
    found = tinymlds.analyze(
        [folders / "never-direct", folders / "xor", folders / "parity"],
        "which-machine",
        seeds=2,
        rungs="majority,knn/raw/plain",
    )
    majority, plain = found.rows
    assert majority.classes == plain.classes == ("xor", "parity")
    assert majority.chance == majority.mean == 0.5
    assert plain.notes == ("without direct, of which no network is complete",)


def test_a_case_without_complete_networks_is_skipped(folders):
    found = tinymlds.analyze(
        [folders / "xor", folders / "never-twin", folders / "parity", folders / "parity-twin"],
        "tampered",
        seeds=2,
        rungs="majority",
        cases="all, xor,parity",
    )
    assert {row.case: row.status for row in found.rows} == {"xor": "skipped", "parity": "done", "all": "done"}
    assert found.rows[0].reason == "no network of tampered is complete, so there is nothing to tell apart"
    parity, both = found.rows[1:]
    assert both.networks == parity.networks, "clean xor networks without a twin would say something of the class"
    assert both.notes[0] == "without 12 networks, as they have no twin that is complete"


def test_epochs_of_networks_held_out_need_not_vary(tmp_path):
    """A case is one of the datasets that are trained on."""
    tiny = {**TINY, "max_epochs": 6, "workers": 1}
    tinymlds.train("xor", 30, tmp_path / "varied", threshold=0.05, **tiny)
    tinymlds.train("xor", 12, tmp_path / "same", threshold=10.0, seed=1, **tiny)
    varied, same = tmp_path / "varied", tmp_path / "same"
    assert len({row["epochs"] for row in tinymlds.open(varied).rows("xor")}) > 2
    (row,) = tinymlds.analyze(varied, "predict-epochs", seeds=2, rungs="linear/statistics/plain", held_out=same).rows
    assert (row.case, row.status, row.others) == ("xor", "done", {}), "R^2 of what does not vary is not defined"
    assert row.scores == (0.0, 0.0)


def test_notes_of_every_rung_are_said_once(folders, tmp_path):
    make(tmp_path / "twin", "xor", 12, modified=True, threshold=5.0, matched=True)
    asked = [str(folders / "xor"), str(tmp_path / "twin"), "--experiment", "tampered", "--seeds", "2"]
    result = CliRunner().invoke(app, ["analyze", *asked, "--rungs", "majority,boosting/raw/plain,forest/raw/equalised"])
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("differ in threshold too") == 2, "in a note and in what is said of pairs"
    assert "\nevery rung: machines and twins differ in threshold too, which scores may be about\n" in result.stdout
    assert "differs from the first in threshold, " in result.stdout


def test_only_the_first_networks(folders):
    whole = tinymlds.analyze([folders / "xor", folders / "twin"], "tampered", seeds=2, rungs="linear/raw/plain")
    first = tinymlds.analyze([folders / "xor", folders / "twin"], "tampered", seeds=2, rungs="linear/raw/plain", networks=9)
    assert [sum(row.networks[part][0] for part in row.networks) for row in (*whole.rows, *first.rows)] == [24, 18]
    assert first.rows[0].command.endswith(" --rungs linear/raw/plain --cases xor --networks 9")
    points = gather([Wanted(tinymlds.open(folders / "twin"), "xor_modified", 1)], ("a", "b"), 9)
    assert np.array_equal(points.weights, tinymlds.open(folders / "twin").weights("xor_modified")[:9])
    assert points.index.tolist() == list(range(9))


def test_a_machine_that_was_never_seen_tampered(folders, monkeypatch):
    """Trained on the training part of the other machines and twins alone, tested on the test part of this one."""
    data = [folders / name for name in ("xor", "twin", "parity", "parity-twin")]
    label = {
        vector.tobytes(): (task.removesuffix("_modified"), index)
        for folder in data
        for dataset in [tinymlds.open(folder)]
        for task in dataset.tasks
        for index, vector in enumerate(dataset.weights(task))
    }
    seen, fit = [], models.fit

    def watch(model, fold, *arguments):
        seen.append([label[vector.tobytes()] for part in (fold.train, fold.validation) for vector in part])
        return fit(model, fold, *arguments)

    monkeypatch.setattr(models, "fit", watch)
    found = tinymlds.analyze(data, "tampered-unseen", seeds=2, rungs="knn/raw/plain")
    rows = found.rows
    assert [row.case for row in rows] == ["xor", "parity"]
    for row, networks in zip(rows, [seen[:2], seen[2:]], strict=True):
        other = "parity" if row.case == "xor" else "xor"
        for number, each in enumerate(networks):
            test = set(found.splits[number]["test"])
            assert {machine for machine, _ in each} == {other}
            assert not {index for _, index in each} & test
            assert row.networks["test"][number] == 2 * len(test)
        assert len(row.others["pairs_right"]) == 2
    assert found.pairs.startswith("matched pairs")


def test_the_process_is_left_as_it_was(folders, monkeypatch):
    """Threads of PyTorch, BLAS and OpenMP, random numbers, switches and the environment."""
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    from threadpoolctl import threadpool_info

    from tinymlds.analysis import graph

    monkeypatch.setattr(graph, "STEPS", 3)
    monkeypatch.setattr(graph, "EPOCHS", 0)

    def state():
        numbers = np.random.get_state()
        libraries = {library["filepath"]: library["num_threads"] for library in threadpool_info()}
        switches = torch.are_deterministic_algorithms_enabled(), torch.is_grad_enabled(), torch.get_default_dtype()
        about = torch.get_num_threads(), torch.get_num_interop_threads(), torch.get_rng_state().tolist(), switches
        environment = {key: os.environ[key] for key in os.environ if key != "TORCHINDUCTOR_CACHE_DIR"}  # PyTorch's own
        return *about, random.getstate(), numbers[1].tolist(), libraries, environment, list(warnings.filters)

    rungs = "majority,knn/raw/plain,linear/raw/plain,forest/raw/plain,boosting/raw/plain,graph/raw/plain"
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        for workers in (1, 2):
            found = state()
            results = tinymlds.analyze(
                [folders / "xor", folders / "parity"], "which-machine", seeds=2, rungs=rungs, workers=workers
            )
            assert all(row.status == "done" for row in results.rows)
            assert state() == found
        network = tinymlds.open(folders / "xor")["xor", 0]
        found = state()
        tinymlds.torch.module(network)
        assert state() == found
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("names", "options", "words"),
    [
        (["xor"], {"experiment": "which-network"}, "no experiment 'which-network'"),
        (["xor"], {}, "at least two machines"),
        (["xor", "xor"], {}, "both have xor"),
        (["xor", "parity"], {"seeds": 1}, "seeds must be between 2"),
        (["xor", "parity"], {"rungs": "oracle"}, "no rung is called 'oracle'"),
        (["xor", "parity"], {"cases": "xor"}, "no case is called 'xor'"),
        (["xor", "parity"], {"experiment": "tampered"}, "modified twin"),
        (["xor", "parity"], {"experiment": "which-transducer"}, "at least two transducers"),
        (["xor"], {"experiment": "predict-epochs"}, "different numbers of epochs"),
        (["two"], {"experiment": "predict-epochs"}, "at least 9 networks"),
        (["xor", "two"], {}, "at least 3 networks"),
        (["xor", "parity"], {"networks": 2}, "networks must be 3 or more"),
        (["xor", "twin"], {"experiment": "tampered-unseen"}, "at least 2 machines and their modified twins"),
        (["xor", "parity"], {"out": "file.json"}, "is there already"),
        (["xor", "parity"], {"out": "nowhere/found.json"}, "nowhere is no folder"),
        (["xor", "parity"], {"out": "file.json/found.json"}, "file.json is no folder"),
        (["xor", "parity"], {"out": "xor/found.json"}, "lies in the dataset"),
        (
            ["xor", "parity"],
            {"out": "other-xor/found.json", "held_out": ["other-xor", "other-parity"]},
            "lies in the dataset",
        ),
        (["xor", "parity"], {"held_out": ["shapely", "other-parity"]}, "different architectures"),
        (["xor", "shapely-parity"], {}, "different architectures"),
        (
            ["xor", "never-twin"],
            {"experiment": "tampered"},
            "no network of tampered is complete, so there is nothing to tell",
        ),
        (["never", "parity-never"], {}, "case all: no network of xor, parity is complete"),
    ],
)
def test_refusals(folders, monkeypatch, names, options, words):
    options = {"experiment": "which-machine", **options}
    if "out" in options:
        options["out"] = folders / options["out"]
        (folders / "file.json").write_text("mine")
    if "held_out" in options:
        options["held_out"] = [folders / name for name in options["held_out"]]
    monkeypatch.setattr(ladder, "climb", None)  # before anything is fitted
    with pytest.raises(tinymlds.UsageError, match=words):
        tinymlds.analyze([folders / name for name in names], **options)


def test_what_is_not_installed_is_named(folders, tmp_path):
    for package in ("sklearn", "torch"):
        (tmp_path / package).mkdir()
        (tmp_path / package / f"{package}.py").write_text("raise ImportError('not here')\n")
    arguments = ("analyze", "xor", "parity", "--experiment", "which-machine", "--seeds", 2)
    path = tinymlds.__path__[0].removesuffix("/tinymlds")
    result = run_cli(*arguments, cwd=folders, env={"PYTHONPATH": f"{tmp_path / 'sklearn'}:{path}"})
    refused(result, 2, "pip install 'tinymlds[analysis]'")
    result = run_cli(
        *arguments, "--rungs", "graph/raw/plain", cwd=folders, env={"PYTHONPATH": f"{tmp_path / 'torch'}:{path}"}
    )
    assert result.returncode == 0, result.stderr
    assert "graph/raw/plain: skipped: the graph network needs PyTorch" in result.stdout


def test_every_experiment_has_a_name_that_the_help_says():
    shown = CliRunner().invoke(app, ["analyze", "--help"]).stdout
    assert all(name in shown for name in experiments.EXPERIMENTS)
