"""A folder of a stranger is refused with one of our errors on one line, whatever is in it.

That takes at most 256 MB more memory and two seconds of CPU time per megabyte; nothing outside the folder is opened, and
nothing unpickled.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys

import pytest
from attacks import ATTACKS, NETWORKS
from forging import TINY, make
from running import ROOT, run_cli

import tinymlds
from tinymlds.dataset import reader, store
from tinymlds.dataset.journal import Journal
from tinymlds.dataset.tensorfile import TensorFile

SECONDS_PER_MEGABYTE = 2.0


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    return make(tmp_path_factory.mktemp("strangers") / "xor")


@pytest.fixture
def folder(intact, tmp_path):
    yield shutil.copytree(intact, tmp_path / "xor")
    subprocess.run(["rm", "-rf", tmp_path], check=True)  # at once, for some are large; and deeper than Python can go


@pytest.fixture(scope="module")
def visit(intact):
    """visit(folder): what tests/visitor.py reports of it."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "tests" / "visitor.py"), str(intact)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:

        def ask(folder):
            process.stdin.write(json.dumps(str(folder)) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield ask
        process.stdin.close()


def megabytes(folder):
    sizes = (os.lstat(os.path.join(place, name)).st_size for place, _, names in os.walk(folder) for name in names)  # noqa: PTH118
    return sum(sizes) / 1e6


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused(folder, visit, name):
    ATTACKS[name](folder)
    allowed = SECONDS_PER_MEGABYTE * max(1.0, megabytes(folder) if name != "folders inside folders" else 1.0)
    report = visit(folder)
    assert "died" not in report, report
    outcomes = report["outcomes"]
    assert not [what for what in outcomes.items() if what[1][0] == "raised"], outcomes
    assert "refused" in [kind for kind, _ in outcomes.values()], outcomes
    assert all(len(message) < 20_000 for _, message in outcomes.values())
    assert (report["outside"], report["unpickled"]) == ([], [])
    assert report["seconds"] <= allowed


def test_at_least_a_hundred_attacks(figure):
    assert len(ATTACKS) >= 100
    figure(attacks=len(ATTACKS))


def test_what_is_no_attack(folder, visit):
    """The watch lets an intact dataset pass, and hard links, which are files like others."""
    for k, path in enumerate(folder.rglob("*.safetensors")):
        os.link(path, folder.parent / str(k))
    report = visit(folder)
    assert {kind for kind, _ in report["outcomes"].values()} == {"fine"}, report
    assert (report["outside"], report["unpickled"]) == ([], [])


@pytest.mark.parametrize("while_open", [False, True])
@pytest.mark.parametrize("look", ["read", "read_row"])
def test_a_file_that_shrinks_after_its_header_was_read(folder, monkeypatch, look, while_open):
    file = TensorFile(folder, NETWORKS)
    whole = (folder / NETWORKS).stat().st_size

    def shrink():
        os.truncate(folder / NETWORKS, file._data_start + 100)

    if while_open:  # after its length was looked at
        opened = file._open()
        shrink()
        monkeypatch.setattr(file, "_open", lambda: opened)
        words = "became shorter"
    else:
        shrink()
        words = f"bytes now, and had {whole}: it is damaged"
    with pytest.raises(tinymlds.DatasetError, match=words):
        file.read() if look == "read" else file.read_row(1)


def test_merging_takes_nothing_from_an_attack(intact, tmp_path, share, draw):
    """It is refused, or named among what is wrong; a journal without networks gives none."""
    for name in draw.sample(sorted(ATTACKS), share(len(ATTACKS), 25)):
        ATTACKS[name](shutil.copytree(intact, tmp_path / "place" / "xor"))
        with contextlib.suppress(tinymlds.TinymldsError):
            merged = tinymlds.merge([tmp_path / "place" / "xor"], tmp_path / "place" / "all", workers=1)
            assert merged.problems or merged.networks == 0, name
            assert merged.digest is None, name
        subprocess.run(["rm", "-rf", tmp_path / "place"], check=True)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_file_that_is_another_thing_once_it_was_looked_at(folder, monkeypatch, kind):
    path, seen = folder / store.SUMS, type(folder).lstat
    stats = {place: seen(place) for place in (folder, path)}
    path.unlink()
    {"link": lambda: path.symlink_to("/etc/hostname"), "pipe": lambda: os.mkfifo(path), "folder": path.mkdir}[kind]()
    monkeypatch.setattr(type(folder), "lstat", lambda place: stats[place])
    with pytest.raises(tinymlds.DatasetError, match="SHA256SUMS"):
        reader.read_sums(folder)


@pytest.mark.parametrize("name", ["x" * 300, "x" * 5000, "no\0", "\udcff"])
def test_names_that_no_folder_has(tmp_path, name):
    for look in (tinymlds.open, tinymlds.verify, tinymlds.status):
        with pytest.raises(tinymlds.TinymldsError):
            look(tmp_path / name)


def test_a_lock_that_is_a_link(tmp_path):
    (tmp_path / store.LOCK).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(tinymlds.TinymldsError, match="link"):
        make(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", [name for name in ATTACKS if "journal" in name])
def test_training_goes_on_from_no_such_journal(folder, intact, name):
    """It is refused, or comes to the networks that were asked for."""
    ATTACKS[name](folder)
    with contextlib.suppress(tinymlds.TinymldsError):
        assert tinymlds.train("xor", 2, folder, workers=1, **TINY).digest == tinymlds.open(intact).digest


def test_what_a_terminal_shows_of_odd_names(folder):
    ATTACKS["names that are no text"](folder)
    shown = run_cli("verify", folder)
    assert shown.returncode == 1
    assert [line.split(":")[0] for line in shown.stdout.splitlines()] == [
        "problem",
        "problem",
        "2 problems",
        f"digest {digest(folder)}",
        "next",
    ]
    assert "\x1b" not in shown.stdout


def digest(folder):
    return tinymlds.open(folder).digest


def test_a_journal_on_shards_that_the_checksums_lack(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "SHARD", 1)
    folder = make(tmp_path / "xor")
    Journal.create(folder, tinymlds.open(folder).spec, {"xor": 1}, [], {}).close()
    (folder / store.SUMS).write_text("")
    with pytest.raises(tinymlds.DatasetError, match=r"SHA256SUMS is damaged: it lacks networks/xor-00000"):
        tinymlds.train("xor", 2, folder, workers=1, **TINY)
