"""What to do next: each command names it, up to a package, and a folder that is not finished has one that goes on."""

import json
import os
import shlex
import shutil

import pytest
from running import EASY, SMALL, begin, run_cli

import tinymlds
from tinymlds.dataset import store
from tinymlds.dataset.lock import RunLock
from tinymlds.spec import Recipe, Spec, recipe_with
from tinymlds.tasks import catalog


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sealed") / "xor"
    tinymlds.train("xor", 2, folder, workers=1, **SMALL)
    return folder


def last_line(*arguments, code=0, **options):
    done = run_cli(*arguments, **options)
    assert done.returncode == code, done.stderr
    return done.stdout.splitlines()[-1]


def test_every_command_names_the_next_one(folder, tmp_path):
    place = folder.parent
    train = ("train", "--machine", "xor", "--count", 2, "--out", folder.name)
    assert last_line(*train, cwd=place) == "next: tinymlds inspect xor xor"
    assert last_line(*train, "--quiet", cwd=place) == "all of them were there already"
    dry = ("train", "--machine", "xor", "--count", 3, "--workers", 1, "--out", tmp_path / "new", "--dry-run")
    assert last_line(*dry) == "next: the same command without --dry-run"
    assert (
        last_line("generate", "--machine", "xor", "--out", "a b", recipe=SMALL, cwd=tmp_path)
        == "next: tinymlds verify 'a b'"
    )
    assert last_line("status", folder.name, cwd=place) == "next: tinymlds verify xor"
    assert last_line("inspect", folder.name, cwd=place) == "next: tinymlds inspect xor xor"
    assert last_line("inspect", folder.name, "xor", cwd=place) == "next: tinymlds inspect xor xor 0"
    assert last_line("inspect", folder.name, "xor", 0, cwd=place) == "next: tinymlds report xor --out xor.html"
    assert last_line("verify", folder.name, cwd=place) == "next: tinymlds verify xor --retrain 59"
    assert last_line("verify", folder.name, "--retrain", 1, cwd=place) == "next: tinymlds inspect xor"
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    (damaged / store.MANIFEST).write_bytes(b"{}\n")
    assert "make it again" in last_line("verify", damaged, code=1)


@pytest.mark.parametrize(
    ("library", "experiment"), [("sklearn", "which-machine"), (None, None)], ids=["an experiment fits", "none fits"]
)
def test_the_next_commands_lead_to_a_package_and_never_in_a_circle(library, experiment, tmp_path):
    pytest.importorskip("plotly", reason="plotly is not installed")
    if library:
        pytest.importorskip(library, reason="scikit-learn is not installed")
    what, count = ("ds1", 4) if experiment else ("xor", 2)
    command, walked = ["train", what, "--count", str(count), "--workers", "1"], []
    added = {"analyze": ["--rungs", "majority"], "package": ["--tolerate"]}  # which saves time, and as these know nothing
    while command:
        assert command not in walked
        walked.append(command)
        done = run_cli(*command, *added.get(command[0], []), cwd=tmp_path, recipe=EASY if command[0] == "train" else None)
        assert done.returncode == 0, done.stderr
        last = done.stdout.splitlines()[-1]
        command = shlex.split(last)[2:] if last.startswith("next: tinymlds ") else []
    analysis = ["analyze", "report"] if experiment else []
    names = [words[0] for words in walked]
    assert names == ["train", "inspect", "inspect", "report", *analysis, "package", "verify", "verify"]
    assert all(experiment in words for words in walked if words[0] == "analyze")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"machine": "xor", "modified": True}, "--machine xor_modified"),
        ({"dataset": "ds2"}, "--dataset ds2"),
        ({"transducers": 3}, "--transducers 3"),
        ({"only": 42}, "--only 42"),
    ],
)
def test_status_of_an_unfinished_folder_names_the_command_that_goes_on(asked, words, tmp_path):
    """And that command asks for what is in the folder."""
    _, chosen = catalog.choose(**asked)
    spec = Spec(tuple((task, 2) for task in chosen), 5, recipe_with(Recipe(), SMALL))
    begin(tmp_path / "made", spec)
    line = last_line("status", "made", cwd=tmp_path)
    assert line == f"next: tinymlds train {words} --count 2 --out made"
    done = run_cli(*line.split()[2:], "--workers", 1, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert tinymlds.open(tmp_path / "made").spec == spec


def test_no_command_is_named_where_none_makes_the_tasks(tmp_path):
    spec = Spec((("xor", 1), ("direct", 1)), 0, recipe_with(Recipe(), SMALL))
    begin(tmp_path / "made", spec)
    assert last_line("status", tmp_path / "made").startswith("no run is known")


def test_a_folder_with_datasets_is_listed(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "xor")
    begin(tmp_path / "parity", Spec((("parity", 4),), 3, recipe_with(Recipe(), SMALL)))
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / store.SUMS).write_text("?")
    (tmp_path / "other").mkdir()
    shown = run_cli("inspect", ".", cwd=tmp_path).stdout.splitlines()
    assert [line.split()[:5] for line in shown[1:-1]][1:] == [
        ["parity", "0", "4", "3", "to"],
        ["xor", "2", "2", "0", "finished"],
    ]
    assert "is damaged" in shown[1]
    assert shown[-1] == "next: tinymlds inspect xor"
    rows = json.loads(run_cli("inspect", tmp_path, "--json").stdout)
    assert [row["state"] for row in rows][1:] == ["to do", "finished"]


def test_what_is_missing_is_in_progress_only_while_somebody_is_at_work(tmp_path):
    begin(tmp_path / "xor", Spec((("xor", 4),), 0, recipe_with(Recipe(), SMALL)))
    assert "to do" in run_cli("status", "xor", cwd=tmp_path).stdout
    with RunLock(tmp_path / "xor"):
        assert last_line("status", "xor", cwd=tmp_path) == "next: tinymlds status xor --watch"
        assert "in progress" in run_cli("status", "xor", cwd=tmp_path).stdout
        refusal = run_cli("inspect", "xor", cwd=tmp_path)
    assert (refusal.returncode, f"process {os.getpid()} on" in refusal.stderr) == (1, True)
    assert "`tinymlds status xor --watch`" in refusal.stderr
