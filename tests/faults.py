"""Faults on purpose: a system call that kills the program or fails, and a disk that loses its power, fills up or breaks."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from running import ROOT

CHANGES = "write,pwrite64,fsync,fdatasync,ftruncate,?rename,?renameat,?renameat2,?unlink,?unlinkat,?mkdir,?mkdirat"
"""The system calls that change a folder or make a change last (strace ignores those with a ? that a machine lacks)."""


def call(*command):
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)


def _why_no_strace():
    if sys.platform != "linux" or not shutil.which("strace"):
        return "strace, a tool for Linux, is not here"
    tried = call("strace", "-f", "-o", os.devnull, "true")
    return tried.returncode and f"strace cannot trace here: {tried.stderr.strip()}"


def _why_no_disk():
    if sys.platform != "linux" or os.geteuid():
        return "only root on Linux mounts disks"
    tools = ("mkfs.ext4", "losetup", "mount", "umount")
    if lacking := [tool for tool in tools if not shutil.which(tool)]:
        return f"lacks {', '.join(lacking)}"
    with tempfile.TemporaryDirectory() as folder:
        tried = call("mount", "-t", "tmpfs", "none", folder)
        if tried.returncode == 0:
            call("umount", folder)
    return (tried.returncode and f"cannot mount here: {tried.stderr.strip()}") or (
        call("losetup", "--find").returncode and "has no loop device"
    )


needs_strace = pytest.mark.skipif(bool(why := _why_no_strace()), reason=str(why))
needs_disks = pytest.mark.skipif(bool(why := _why_no_disk()), reason=str(why))


def strace(command, inject=(), calls=CHANGES, paths=()):
    """Run a command under strace. Returns the CompletedProcess, and the names of the `calls` that it made and of those that
    were made to fail, in order.

    Only the main thread counts; and with `paths`, only calls that have to do with one of these files and folders.
    """
    with tempfile.NamedTemporaryFile("r") as log:
        options = ["-f", "-qq", "-o", log.name, f"--trace={calls}", *inject]
        options += [part for path in paths for part in ("-P", str(path))]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(["strace", *options, *command], capture_output=True, text=True, env=environment, check=False)
        lines = [match.groups() for line in log if (match := re.match(r"(\d+) +(\w+)\(.*?(\(INJECTED\))?$", line))]
    made = [(name, failed) for thread, name, failed in lines if thread == lines[0][0]]
    return done, [name for name, _ in made], [name for name, failed in made if failed]


def at_call(number, names, effect, onwards=False):
    """What `strace` has to inject for an effect at one of the calls of an undisturbed run, and at all `onwards` if wanted.

    A call that is hit is not executed. strace counts each name by itself.
    """
    before = names[: number - 1]
    hit = sorted(set(names)) if onwards else [names[number - 1]]
    return [f"--inject={name}:{effect}:when={before.count(name) + 1}{'+' * onwards}" for name in hit]


def _must(*command):
    done = call(*command)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout.strip()


@contextlib.contextmanager
def mounted(what, place, *options):
    """Mount a device, or "tmpfs", at a new folder."""
    place.mkdir()
    _must("mount", *options, what, place)
    try:
        yield place
    finally:
        if call("umount", place).returncode:  # somebody still looks at it: it goes when they have gone
            _must("umount", "--lazy", place)


class Disk:
    """A loop device on an image, which stands for a drive.

    The loop device opens its image with O_DIRECT where it can: what the file system has sent to the drive is in the image,
    and what it still holds in memory is not.
    """

    def __init__(self, image):
        self._image = image
        self.device = _must("losetup", "--find", "--show", "--direct-io=on", image)
        self._figures = Path("/sys/block", Path(self.device).name, "stat")

    @classmethod
    def new(cls, image, megabytes=64):
        """With an empty ext4; nothing of it is left for the kernel to initialise later."""
        with image.open("wb") as file:
            file.truncate(megabytes << 20)
        _must("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", image)
        return cls(image)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        _must("losetup", "--detach", self.device)

    def cut_power(self, copy):
        """Copy the image as a power cut would leave the drive. Nobody is asked to flush or to unmount anything.

        A copy takes milliseconds and a power cut none. So it is taken again until the drive has finished no write
        meanwhile: then it is what was on the drive at one moment, but for writes under way, of which any part may be there.

        Simulated: the loss of all that the file system had not sent to the drive, at any moment, and the replay of its
        journal. Not simulated: drives that lose or reorder what they reported as written, and sectors that are half
        written or unreadable afterwards.
        """
        for _ in range(1000):
            before = self._writes_finished()
            _copy_sparse(self._image, copy)
            if self._writes_finished() == before:
                return
        raise AssertionError("the drive is never quiet for as long as a copy takes")

    def _writes_finished(self):
        figures = self._figures.read_text().split()
        return figures[4], figures[11:]  # writes; discards and flushes


def _copy_sparse(source, target):
    """Copy what is written of a file, fast."""
    with source.open("rb") as reader, target.open("wb") as writer:
        size, position = os.fstat(reader.fileno()).st_size, 0
        writer.truncate(size)
        while position < size:
            try:
                start = os.lseek(reader.fileno(), position, os.SEEK_DATA)
            except OSError:  # nothing but a hole from here on
                return
            position = os.lseek(reader.fileno(), start, os.SEEK_HOLE)
            os.lseek(writer.fileno(), start, os.SEEK_SET)
            while start < position:
                start += os.sendfile(writer.fileno(), reader.fileno(), start, position - start)
