"""What happens to a run from outside costs time and nothing else: a kill, a power cut, a disk that fails or is full.

Whatever the moment, no network that was kept is lost, none is there twice, each has the weights of an undisturbed run, and
the same command ends with that run's digest. While a folder has a journal the journal says what is kept; else SHA256SUMS.
When the disk refuses, the command says so in one line that names the place, and exits with 1.
"""

import functools
import os
import shutil
import signal
import subprocess
import time
from contextlib import closing

import pytest
from faults import CHANGES, Disk, at_call, call, mounted, needs_disks, needs_strace, strace
from running import ROOT, SMALL, cli_command

import tinymlds
from tinymlds.dataset import sealing, store
from tinymlds.dataset.journal import Journal

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="process groups and SIGKILL are POSIX")]

LONG, LONG_RECIPE = 150, {**SMALL, "train_sequences": 1024, "max_epochs": 4}
"""A run of several seconds."""

SHORT, SHORT_RECIPE = 4, {**SMALL, "max_epochs": 2}
"""A run whose every system call can be tried."""

STARTS = ("nothing", "a complete journal", "a smaller dataset")
"""What a short run finds: it makes a journal, or seals one, or opens a dataset again and writes its last shard anew."""


def command(folder, count=SHORT, recipe=SHORT_RECIPE, workers=1):
    wanted = ["--machine", "xor", "--count", count, "--checkpoints", "0,1"]
    return cli_command("train", *wanted, "--out", folder, "--workers", workers, "--quiet", recipe=recipe)


def train(folder, count=SHORT, recipe=SHORT_RECIPE):
    """What `command` does."""
    return tinymlds.train("xor", count, folder, workers=1, checkpoints=(0, 1), **recipe)


def start(folder, **arguments):
    """A long run in the background."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    line = command(folder, LONG, LONG_RECIPE, **arguments)
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(line, env=environment, start_new_session=True, **pipes)


def wait_for_network(folder):
    deadline = time.monotonic() + 120
    while not kept(folder):
        assert time.monotonic() < deadline, "no network in two minutes"
        time.sleep(0.02)


def kill(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stderr.close()


def kept(folder):
    """{index: sha256 of its weights} of the networks that a folder holds; what is damaged raises."""
    journal = Journal.open(folder) if folder.is_dir() else None
    if journal is not None:
        with closing(journal):
            entries = journal.entries("xor", range(LONG))
            return {entry.outcome.index: store.array_sha256(entry.outcome.weights) for entry in entries}
    if not (folder / store.SUMS).exists():
        return {}
    return {network.row["index"]: store.array_sha256(network.weights) for network in tinymlds.open(folder)}


class Undisturbed:
    """What an undisturbed run makes."""

    def __init__(self, folder, *work):
        self.folder, self._work = folder, work
        self.digest, self.networks = train(folder, *work).digest, kept(folder)
        assert list(self.networks) == list(range(work[0]))

    def check(self, folder, at_least):
        """The folder holds these networks and maybe others, and goes on to the same end. Returns how many it held."""
        found = kept(folder)
        assert found.items() >= at_least.items(), f"lost {set(at_least) - set(found)}"
        assert found.items() <= self.networks.items()
        result = train(folder, *self._work)
        assert result.digest == self.digest
        assert result.progress.made == len(self.networks) - len(found)
        assert tinymlds.verify(folder).ok
        return len(found)


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    return Undisturbed(tmp_path_factory.mktemp("long") / "xor", LONG, LONG_RECIPE)


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    return Undisturbed(tmp_path_factory.mktemp("short") / "xor", SHORT, SHORT_RECIPE)


@pytest.fixture(scope="module")
def make_start(tmp_path_factory):
    """make_start(name, folder): what a short run finds there; returns the networks that it holds."""
    folders = tmp_path_factory.mktemp("starts")

    def refuse(*_):
        raise tinymlds.TinymldsError("not yet")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sealing, "seal", refuse)
        with pytest.raises(tinymlds.TinymldsError, match="not yet"):
            train(folders / STARTS[1])
    train(folders / STARTS[2], SHORT - 1)

    def make(name, folder):
        shutil.rmtree(folder, ignore_errors=True)
        if name != "nothing":
            shutil.copytree(folders / name, folder)
        return kept(folder)

    return make


@pytest.fixture(scope="module")
def list_calls(tmp_path_factory, short, make_start):
    """list_calls(name, calls): system calls of an undisturbed short run; all of them, or those about its own folder."""
    folder = tmp_path_factory.mktemp("listed") / "xor"

    @functools.cache
    def listed(name, calls=CHANGES, own=False):
        make_start(name, folder)
        done, made, _ = strace(command(folder), (), calls, places(folder, short) if own else ())
        assert done.returncode == 0, done.stderr
        short.check(folder, short.networks)
        return made

    return listed


def places(folder, undisturbed):
    """Every path that a run with this folder may touch."""
    found = [folder / path.relative_to(undisturbed.folder) for path in undisturbed.folder.rglob("*")]
    new = [path.with_name(f"{path.name}.part") for path in found if path.suffix or path.name == store.SUMS]
    own = [folder / f"{name}{end}" for name in (store.JOURNAL, store.LOCK) for end in ("", "-journal")]
    return [folder.parent, folder, *found, *new, *own]


def some_of(total, number, draw):
    """So many of the numbers 1 ... total, at random but spread out; all of them if there are not more."""
    number = min(number, total)
    return [draw.randrange(total * k // number, total * (k + 1) // number) + 1 for k in range(number)]


# ------------------------------------------------------------------ kills


def test_killed_at_random_moments(tmp_path, share, draw, figure, long):
    """SIGKILL to the whole process group; a fresh folder whenever one was finished before that."""
    wanted = share(200, 8)
    kills, finished, folder, before = 0, 0, tmp_path / "0", {}
    while kills < wanted or not finished:
        process = start(folder, workers=2)
        try:
            process.wait(timeout=draw.uniform(0.2, 4.0) if kills < wanted else None)
            assert process.returncode == 0, process.stderr.read()
            long.check(folder, long.networks)
            process.stderr.close()
            finished += 1
            shutil.rmtree(folder)
            folder, before = tmp_path / str(finished), {}
        except subprocess.TimeoutExpired:
            kill(process)
            kills += 1
            after = kept(folder)
            assert before.items() <= after.items() <= long.networks.items()
            before = after
    figure(kills=kills, finished=finished, lost=0)


@needs_strace
@pytest.mark.parametrize("name", STARTS)
def test_killed_at_every_system_call(tmp_path, share, draw, figure, short, make_start, list_calls, name):
    """A run that trains keeps its networks in one transaction or in several, by the clock; sealing is always the same."""
    folder, calls = tmp_path / "xor", list_calls(name)
    kills, numbers = 0, some_of(len(calls), share(len(calls), 4), draw)
    for number in numbers:
        print(f"call {number}, {calls[number - 1]}")
        before = make_start(name, folder)
        done, made, _ = strace(command(folder), at_call(number, calls, "signal=KILL"))
        if done.returncode == 0 and name == "nothing" and len(made) < len(calls):
            before = short.networks  # it had no such call
        else:
            assert done.returncode == -signal.SIGKILL, done.stderr
            assert len(made) == number or name == "nothing"
            kills += 1
        short.check(folder, before)
    figure(calls=len(calls), kills=kills, lost=0)


# ------------------------------------------------------------------ power cuts


@needs_disks
def test_power_cuts_during_a_run(tmp_path, share, draw, figure, long):
    """From 0 to 12 s after a commit; what a reader saw in the journal before the cut is there after it."""
    cuts, held = share(50, 2), []
    with Disk.new(tmp_path / "image") as disk, mounted(disk.device, tmp_path / "disk") as place:
        for number in range(cuts):
            folder = place / str(number)
            process = start(folder)
            wait_for_network(folder)
            time.sleep(draw.choice((0.0, draw.uniform(0, share(12, 3)))))
            before = kept(folder)
            disk.cut_power(tmp_path / "copy")
            kill(process)
            shutil.rmtree(folder)
            with Disk(tmp_path / "copy") as left, mounted(left.device, tmp_path / f"left-{number}") as after:
                held.append(long.check(after / str(number), before))
    figure(cuts=cuts, held=held, lost=0)


@needs_disks
@needs_strace
@pytest.mark.parametrize("name", STARTS)
def test_power_cuts_at_system_calls(tmp_path, share, draw, figure, short, make_start, list_calls, name):
    with Disk.new(tmp_path / "image") as disk, mounted(disk.device, tmp_path / "disk") as place:
        folder = place / "xor"
        calls = list_calls(name)
        numbers = some_of(len(calls), share(50, 1), draw)
        for number in numbers:
            before = make_start(name, folder)
            call("sync", "--file-system", place)
            strace(command(folder), at_call(number, calls, "signal=KILL"))
            disk.cut_power(tmp_path / "copy")
            with Disk(tmp_path / "copy") as left, mounted(left.device, tmp_path / f"left-{number}") as after:
                short.check(after / "xor", before)
    figure(calls=len(calls), cuts=len(numbers), lost=0)


# ------------------------------------------------------------------ disks that refuse


def assert_refused(done, folder):
    """Exit code 1, and one line that names the folder or a file in it."""
    assert done.returncode == 1, (done.returncode, done.stderr)
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("tinymlds: cannot "), done.stderr
    assert str(folder) in done.stderr, done.stderr


@needs_strace
@pytest.mark.parametrize("error", ["ENOSPC", "EIO", "EROFS"])
@pytest.mark.parametrize("name", STARTS)
def test_a_system_call_that_fails(tmp_path, share, draw, figure, short, make_start, list_calls, name, error):
    """At any call, once or from then on.

    SQLite carries on when it cannot flush the folder in which it made its rollback journal, and a lock file that cannot be
    removed is in nobody's way. A run that ends well in spite of such an error has to have made everything.
    """
    folder, calls = tmp_path / "xor", f"{CHANGES},?open,openat"
    names, paths = list_calls(name, calls, own=True), places(folder, short)
    numbers = range(1, len(names) + 1)
    cases = [(number, onwards) for number in numbers for onwards in (False, True)]
    refused = 0
    for number, onwards in draw.sample(cases, share(len(cases), 1)):
        print(f"call {number}, {names[number - 1]}, {'all from then on' if onwards else 'once'}")
        before = make_start(name, folder)
        done, _, failed = strace(command(folder), at_call(number, names, f"error={error}", onwards), calls, paths)
        if done.returncode == 0:
            before = short.networks
            assert set(failed) <= {"open", "openat", "fdatasync", "unlink", "unlinkat"}, failed
            assert short.digest in done.stdout
        else:
            assert_refused(done, folder)
            refused += 1
        short.check(folder, before)
    figure(calls=len(names), refused=refused, ended_well=share(len(cases), 1) - refused, lost=0)


def run(folder):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command(folder), capture_output=True, text=True, env=environment, check=False)


@needs_disks
@pytest.mark.parametrize("name", STARTS)
def test_a_full_disk(tmp_path, share, draw, figure, short, make_start, name):
    """A real one, with from one to as many free pages as the run needs; then it gets larger."""
    with mounted("tmpfs", tmp_path / "disk", "-t", "tmpfs", "-o", "size=64m") as place:
        folder = place / "xor"

        def resize(pages):
            assert call("mount", "-o", f"remount,size={pages * os.statvfs(place).f_frsize}", place).returncode == 0

        def used():
            return os.statvfs(place).f_blocks - os.statvfs(place).f_bfree

        make_start(name, folder)
        before = used()
        assert run(folder).returncode == 0
        most = max(used() - before, 8)  # pages more in the end; on its way it takes more than that
        numbers = some_of(most, share(most, 2), draw)
        for number in numbers:
            held = make_start(name, folder)
            resize(used() + number)
            assert_refused(run(folder), folder)
            resize(1 << 14)
            short.check(folder, held)
    figure(pages=most, refused=len(numbers), lost=0)


@needs_disks
def test_a_disk_that_becomes_read_only(tmp_path, share, draw, figure, long):
    """As ext4 does after an error, at a random moment of a run; then it is mounted anew."""
    times, held = share(20, 1), []
    with Disk.new(tmp_path / "image") as disk:
        for number in range(times):
            with mounted(disk.device, tmp_path / f"broken-{number}") as place:
                folder = place / "xor"
                process = start(folder)
                wait_for_network(folder)
                time.sleep(draw.uniform(0.0, 0.5))
                before = kept(folder)
                assert call("mount", "-o", "remount,abort", place).returncode == 0
                _, errors = process.communicate(timeout=120)
                assert_refused(subprocess.CompletedProcess([], process.returncode, None, errors), folder)
            with mounted(disk.device, tmp_path / f"mended-{number}") as place:
                held.append(long.check(place / "xor", before))
                shutil.rmtree(place / "xor")
    figure(times=times, held=held, lost=0)


@needs_disks
@pytest.mark.parametrize("name", STARTS)
def test_a_disk_that_is_read_only(tmp_path, short, make_start, name):
    with mounted("tmpfs", tmp_path / "disk", "-t", "tmpfs") as place:
        before = make_start(name, place / "xor")
        assert call("mount", "-o", "remount,ro", place).returncode == 0
        assert_refused(run(place / "xor"), place)
        assert call("mount", "-o", "remount,rw", place).returncode == 0
        short.check(place / "xor", before)
