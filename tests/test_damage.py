"""Damage is found: `verify` names every file that differs by a byte, is cut, missing, exchanged, or of another time.

10,000 changed bytes and every length of a shard with `--full`; some 200 of each otherwise.
"""

import json
import shutil

import numpy as np
import pytest
from forging import TINY, canonical, forge, forge_rows, forge_tensors, make
from running import run_cli
from typer.testing import CliRunner

import tinymlds
from tinymlds.cli import app
from tinymlds.dataset import store
from tinymlds.dataset.tensorfile import TensorFile

TASKS = ("transducer_000", "transducer_001")
NETWORKS, LOSSES, CHECKPOINTS = (store.shard_name(kind, TASKS[0], 0) for kind in ("networks", "losses", "checkpoints"))


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    """A dataset as it was with one network of each task, and as it is with two."""
    now, before = (tmp_path_factory.mktemp("versions") / name for name in ("now", "before"))
    asked = {"dataset": "ds3", "transducers": 2, "out": now, "workers": 1, "checkpoints": (0, 2), **TINY}
    tinymlds.train(count=1, **asked)
    shutil.copytree(now, before)
    tinymlds.train(count=2, **asked)
    return now, before


@pytest.fixture
def folder(versions, tmp_path):
    return shutil.copytree(versions[0], tmp_path / "ds3")


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def named(folder, name):
    """Whether verify finds something and names the file; SHA256SUMS is named in every message on hashes."""
    found = tinymlds.verify(folder)
    return not found.ok and any(name in problem for problem in found.problems)


def test_every_changed_byte_is_found(folder, draw, share, figure):
    names, changes = files(folder), share(10_000, 200)
    intact = {name: (folder / name).read_bytes() for name in names}
    hits = dict.fromkeys(names, 0)
    for _ in range(changes):
        name = draw.choice(names)
        data = bytearray(intact[name])
        position, mask = draw.randrange(len(data)), draw.randrange(1, 256)
        data[position] ^= mask
        (folder / name).write_bytes(data)
        assert named(folder, name), f"byte {position} of {name} changed by {mask:#x}"
        (folder / name).write_bytes(intact[name])
        hits[name] += 1
    assert tinymlds.verify(folder).ok
    figure(changes=changes, found=sum(hits.values()), files=len(names))


def test_the_command_says_so_too(folder, draw, share):
    names = files(folder)
    for _ in range(share(20, 2)):
        name = draw.choice(names)
        intact = (folder / name).read_bytes()
        data = bytearray(intact)
        data[draw.randrange(len(data))] ^= draw.randrange(1, 256)
        (folder / name).write_bytes(data)
        done = run_cli("verify", folder)
        assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
        assert any(line.startswith("problem: ") and name in line for line in done.stdout.splitlines())
        (folder / name).write_bytes(intact)


@pytest.mark.parametrize("name", [NETWORKS, LOSSES])
def test_no_length_but_the_right_one(folder, draw, share, figure, name):
    """The reader refuses each shorter length, and verify says which file it is."""
    whole = (folder / name).read_bytes()
    lengths = range(len(whole))
    with (folder / name).open("r+b") as file:
        for length in sorted(draw.sample(lengths, min(len(whole), share(len(whole), 2000))), reverse=True):
            file.truncate(length)
            with pytest.raises(tinymlds.DatasetError, match=name):
                TensorFile(folder, name)
    tried = draw.sample(lengths, min(len(whole), share(len(whole), 40)))
    for length in tried:
        (folder / name).write_bytes(whole[:length])
        assert named(folder, name), length
    for more in (b"\0", whole):
        (folder / name).write_bytes(whole + more)
        assert named(folder, name), len(more)
    figure(lengths=len(whole), verified=len(tried))


def test_missing_files(folder):
    for name in files(folder):
        shutil.move(folder / name, folder.parent / "away")
        if name == store.SUMS:
            with pytest.raises(tinymlds.DatasetError, match="SHA256SUMS"):
                tinymlds.verify(folder)
        else:
            assert named(folder, name)
        shutil.move(folder.parent / "away", folder / name)


def test_missing_lines_of_checksums(folder):
    """Where a file and its line are both gone, or the line alone."""
    lines = (folder / store.SUMS).read_text().splitlines(keepends=True)
    for k, line in enumerate(lines):
        (folder / store.SUMS).write_text("".join(lines[:k] + lines[k + 1 :]))
        name = line.split()[1]
        assert named(folder, name)
        shutil.move(folder / name, folder.parent / "away")
        assert named(folder, name)
        shutil.move(folder.parent / "away", folder / name)


def test_extra_files(folder):
    for name in ("extra", "networks/extra.bin", "networks/below/extra", "more/extra"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"?")
        assert named(folder, name.rsplit("/", 1)[0] if "below" in name else name)
        shutil.rmtree(folder / name.split("/")[0]) if name[:4] == "more" else (folder / name).unlink()
    (folder / "networks" / "below").rmdir()
    (folder / "link").symlink_to("/etc/hostname")
    assert named(folder, "link")
    (folder / "link").unlink()
    assert tinymlds.verify(folder).ok
    forge(folder, "extra", b"?")
    assert named(folder, "extra"), "also where SHA256SUMS lists it"


def test_files_of_an_older_time(folder, versions):
    """An old file beside the new checksums, or old checksums beside the new files; all that is old is the old dataset."""
    now, before = versions
    changed = [name for name in files(now) if (now / name).read_bytes() != (before / name).read_bytes()]
    assert {store.SUMS, store.DESCRIPTION, store.MANIFEST, NETWORKS, LOSSES} < set(changed)
    for name in changed:
        shutil.copy(before / name, folder / name)
        assert named(folder, name)
        if name != store.SUMS:
            forge(folder, name, (before / name).read_bytes())
            assert not tinymlds.verify(folder).ok or name == store.PROVENANCE, "with its hash too"
        shutil.copy(now / name, folder / name)
        shutil.copy(now / store.SUMS, folder / store.SUMS)
    for name in changed:
        shutil.copy(before / name, folder / name)
    assert tinymlds.verify(folder).digest == tinymlds.open(before).digest != tinymlds.open(now).digest


@pytest.mark.parametrize("kind", ["data", "networks", "losses", "checkpoints"])
def test_files_exchanged_between_tasks(folder, kind):
    one, other = (store.data_name(task) if kind == "data" else store.shard_name(kind, task, 0) for task in TASKS)
    contents = [(folder / name).read_bytes() for name in (one, other)]
    (folder / one).write_bytes(contents[1])
    (folder / other).write_bytes(contents[0])
    assert named(folder, one)
    assert named(folder, other)
    forge(folder, one, contents[1])
    forge(folder, other, contents[0])
    problems = tinymlds.verify(folder).problems
    assert all(any(task in problem for problem in problems) for task in TASKS), "with their hashes exchanged too"


def exchange(tensors):
    for array in tensors.values():
        array[[0, 1]] = array[[1, 0]]


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        (NETWORKS, exchange, "transducer_000 1 has other weights"),
        (NETWORKS, lambda tensors: tensors["head.4.bias"].__imul__(2), "transducer_000 1 has other weights"),
        (CHECKPOINTS, exchange, "transducer_000 1 has other checkpoints"),
        (LOSSES, lambda tensors: tensors["train"].__imul__(2), "transducer_000 1 has other losses"),
        (LOSSES, lambda tensors: tensors["offsets"].__setitem__(1, 1), LOSSES),
        (LOSSES, lambda tensors: tensors["offsets"].__setitem__(1, -(2**63)), LOSSES),
        (store.data_name(TASKS[0]), lambda tensors: tensors["train.symbols"].__imul__(0), store.data_name(TASKS[0])),
    ],
)
def test_shards_that_were_changed_with_their_hash(folder, name, change, words):
    forge_tensors(folder, name, change)
    assert named(folder, words)


def test_verify_computes_the_losses_itself(tmp_path):
    """Weights that were changed together with every hash are caught by the validation loss alone."""
    folder = make(tmp_path / "xor")
    weights = tinymlds.open(folder)["xor", 1].weights.copy()
    weights[-8:] += np.float32(1e-3)  # head.4.bias, the last tensor
    changed = store.array_sha256(weights)
    forge_tensors(folder, store.shard_name("networks", "xor", 0), lambda tensors: tensors["head.4.bias"][1].__iadd__(1e-3))
    forge_rows(folder, lambda rows: rows[1].update(weights_sha256=changed))
    assert "xor 1 has validation loss" in tinymlds.verify(folder).problems[0]


@pytest.mark.parametrize("stated", [1, 3])
def test_a_number_of_checkpoints_that_is_not_true(tmp_path, stated):
    """A row says 3 (or 1), the shard holds 2 and then NaN; every hash, that of the checkpoints stated too, is right."""
    folder = make(tmp_path / "xor", count=3, checkpoints=(0, 1, 2), threshold=10.0)  # reached after the first epoch
    checkpoints = tinymlds.open(folder).checkpoints("xor")[1]
    assert np.isnan(checkpoints).all(axis=1).tolist() == [False, False, True]
    hashes = {"checkpoints": stated, "checkpoints_sha256": store.array_sha256(checkpoints[:stated])}
    forge_rows(folder, lambda rows: rows[1].update(hashes))
    result = CliRunner().invoke(app, ["verify", str(folder)])
    assert result.exit_code == 1
    problems = [line for line in result.stdout.splitlines() if line.startswith("problem: ")]
    said = f"xor 1 has {stated} checkpoints, and 2 by its epochs; the manifest is wrong about it"
    assert problems == [f"problem: {folder}: {said}"]


@pytest.mark.parametrize("name", [store.DESCRIPTION, store.MANIFEST])
def test_one_spelling(folder, name):
    """The same values written otherwise would be another digest of the same networks."""
    text = (folder / name).read_text()
    for other in (text.replace(":", ": "), text.replace("\n", "\r\n"), text.replace('":2,', '":2.0,', 1)):
        if name == store.MANIFEST and ":2.0" in other:
            continue  # no column is the same as a float
        assert other != text
        forge(folder, name, other.encode())
        assert named(folder, name)
    forge(folder, name, text.encode())
    assert tinymlds.verify(folder).ok


def test_a_status_that_the_losses_do_not_bear_out(folder):
    forge_rows(folder, lambda rows: rows[0].update(status="complete", reason=""))
    assert named(folder, "transducer_000 0 did not end as complete")


def test_runs_that_never_were(tmp_path):
    """Provenance is no part of the digest: it may differ, its hash may not."""
    folder = make(tmp_path / "xor")
    digest = tinymlds.open(folder).digest
    line = json.loads((folder / store.PROVENANCE).read_text().splitlines()[0])
    (folder / store.PROVENANCE).write_text(canonical({**line, "host": "elsewhere"}) + "\n")
    assert named(folder, store.PROVENANCE)
    forge(folder, store.PROVENANCE, (folder / store.PROVENANCE).read_bytes())
    assert (tinymlds.verify(folder).ok, tinymlds.open(folder).digest) == (True, digest)
