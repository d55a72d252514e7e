"""Fuzzing of what reads a dataset: mutated files, true checksums, and no outcome but ours.

    python tests/fuzz.py --seconds 60                  with atheris (extra [fuzz]) guided by coverage, else at random
    python tests/fuzz.py --seconds 60 --random [SEED]  at random
    python tests/fuzz.py --input FILE                  one input again, such as the crash-… that atheris leaves

An input is a program of edits: which file, whether to verify too, then operations on its bytes. A failure is an exception
that is none of tinymlds' own, and shows as a traceback.
"""

import argparse
import importlib.util
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

GUIDED = (
    "tinymlds.dataset.reader",
    "tinymlds.dataset.tensorfile",
    "tinymlds.dataset.dataset",
    "tinymlds.dataset.manifest",
    "tinymlds.dataset.schema",
    "tinymlds.spec",
    "tinymlds.verification.checks",
    "tinymlds.architectures.params",
    "tinymlds.tasks.catalog",
)
"""What atheris looks into; the kernels are compiled, and stay as they are."""

WORDS = [
    *(b'null true -1 0 1e999 1e-9 NaN -Infinity 2.0 "" [] {} [[[[ {"a": \\ud800 \xef\xbb\xbf \r\n \xff'.split(b" ")),
    *(str(number).encode() for number in (2**31, 2**63, 2**64, 10**40, 10**400)),
    *(number.to_bytes(8, "little", signed=True) for number in (-1, 1, 2**62, -(2**63))),
    b'"F32"',
    b'"I64"',
    b'"data_offsets":[0,0]',
    b"[2,8]",
    b"../x",
    b"  /etc/hostname\n",
    b"xor_modified",
    b"transducer_000",
    b"complete",
    b"diverged",
    b"sequences",
]


def mutate(data, program):
    """The bytes after the edits of a program: operations of six bytes, what, where (four) and how much."""
    data = bytearray(data)
    for k in range(0, len(program) - 5, 6):
        what, where, much = (
            program[k] % 6,
            int.from_bytes(program[k + 1 : k + 5], "little") % (len(data) + 1),
            program[k + 5],
        )
        if what == 0:
            data[where : where + 1] = bytes([much])
        elif what == 1:
            data[where:where] = WORDS[much % len(WORDS)]
        elif what == 2:
            word = WORDS[much % len(WORDS)]
            data[where : where + len(word)] = word
        elif what == 3:
            del data[where : where + much]
        elif what == 4:
            data[where:where] = data[where : where + much]
        elif much < 16:
            del data[where:]
        else:
            data[where : where + 8] = (much - 128).to_bytes(8, "little", signed=True)
    return bytes(data)


class Harness:
    """A small dataset that every input is tried on; call it with the input's bytes."""

    def __init__(self, folder):
        import forging

        import tinymlds
        from tinymlds.dataset import store

        self.folder, self.tinymlds, self.forge, self.sums = folder, tinymlds, forging.forge, store.SUMS
        forging.make(folder, checkpoints=(0, 1))
        self.files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
        self.names = list(self.files)
        self.inputs = self.refused = 0

    def __call__(self, data):
        if len(data) < 2:
            return
        name = self.names[data[0] % len(self.names)]
        changed = mutate(self.files[name], data[2:])
        if name == self.sums:
            (self.folder / name).write_bytes(changed)
        else:
            self.forge(self.folder, name, changed)
        try:
            self.look(verify=data[1] % 8 == 0)
        finally:
            (self.folder / name).write_bytes(self.files[name])
            (self.folder / self.sums).write_bytes(self.files[self.sums])

    def look(self, verify):
        self.inputs += 1
        try:
            dataset = self.tinymlds.open(self.folder)
            for task in dataset.tasks:
                dataset.weights(task)
                dataset.losses(task)
                dataset.checkpoints(task)
            self.tinymlds.status(self.folder)
            if verify:
                self.tinymlds.verify(self.folder)
        except self.tinymlds.TinymldsError as error:
            self.refused += 1
            if not str(error).isprintable():
                raise ValueError("a message of several lines") from error


def at_random(harness, seconds, seed):
    """Inputs that follow one another at random."""
    print(f"seed {seed}")
    draw, end = random.Random(seed), time.monotonic() + seconds
    while time.monotonic() < end:
        data = draw.randbytes(2 + 6 * draw.choice([1, 1, 1, 2, 4, 16]))
        try:
            harness(data)
        except Exception:
            print(f"input {data.hex()}")
            raise
    print(f"{harness.inputs} inputs, {harness.refused} refused")


def guided(folder, seconds):
    """Inputs that atheris finds by coverage; it ends the process, with 0 if nothing was found."""
    import atheris

    with atheris.instrument_imports(include=list(GUIDED)):
        import tinymlds.verification.checks  # noqa: F401
    harness = Harness(folder)
    options = [
        f"-max_total_time={seconds}",
        "-max_len=128",
        "-len_control=0",
        "-timeout=20",
        "-rss_limit_mb=4096",
        "-verbosity=1",
    ]
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={Path.cwd()}/"], harness)
    atheris.Fuzz()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--random", type=int, nargs="?", const=random.SystemRandom().randrange(2**32), metavar="SEED")
    parser.add_argument("--input", type=Path, help="a file with one input, or its bytes in hexadecimal digits")
    asked = parser.parse_args()
    parent = Path(tempfile.mkdtemp())
    try:
        if asked.input:
            data = asked.input.read_bytes() if asked.input.exists() else bytes.fromhex(str(asked.input))
            Harness(parent / "xor")(data)
        elif asked.random is None and importlib.util.find_spec("atheris"):
            if (child := os.fork()) == 0:
                guided(parent / "xor", asked.seconds)
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        else:
            seed = random.SystemRandom().randrange(2**32) if asked.random is None else asked.random
            at_random(Harness(parent / "xor"), asked.seconds, seed)
    finally:
        shutil.rmtree(parent)


if __name__ == "__main__":
    main()
