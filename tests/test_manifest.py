"""The manifest is read many rows at a time where it is as it should be: never more leniently than row by row."""

import json
import random

import pytest
from forging import TINY, canonical
from fuzz import mutate

import tinymlds
from tinymlds.dataset import manifest, reader, store
from tinymlds.dataset.manifest import Manifest

NUMBERS = ["0", "1", "1.0", "0.5", "1e-9", "2", "1e39", "1e400", "-0.0", "-1", "01", "1.", ".5", "1E-5", "+1", "1_0"]
NUMBERS += ["null", "true", "NaN", '"0"', "[]", "9" * 50, "9" * 5000, "0." + "1" * 300, "1e-999", " 1", "1 ", "\u0661"]
TEXTS = [
    '""',
    '"x"',
    '"a\\u0041"',
    '"\\n"',
    '"\\\\"',
    '"\x7f"',
    '"\u00e9"',
    '"a\tb"',
    "null",
    "5",
    '"' + "x" * 2000 + '"',
    "{}",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Three tasks, whose rows differ in status, checkpoints and length."""
    folder = tmp_path_factory.mktemp("manifest") / "ds3"
    asked = {"transducers": 3, "checkpoints": (0, 2), "workers": 1, **TINY, "threshold": 0.125}
    tinymlds.train(dataset="ds3", count=4, out=folder, **asked)
    return folder


def read(folder, spec, one_by_one, monkeypatch):
    """The rows and whether any were read one by one; or the error."""
    slow = []
    with monkeypatch.context() as patch:
        if one_by_one:
            patch.setattr(Manifest, "_are_possible", lambda *_: False)
        real = reader.parse_lines
        patch.setattr(reader, "parse_lines", lambda *arguments: (slow.append(1), real(*arguments))[1])
        try:
            return canonical(list(Manifest(folder, spec))), bool(slow)
        except tinymlds.DatasetError as error:
            return str(error), bool(slow)


def same_either_way(folder, spec, data, monkeypatch):
    """Whether these bytes are taken many at a time; what comes of them may not depend on it."""
    (folder / store.MANIFEST).write_bytes(data)
    quick, slow = (read(folder, spec, one_by_one, monkeypatch) for one_by_one in (False, True))
    assert quick[0] == slow[0]
    return not quick[1]


@pytest.fixture
def other(made, tmp_path):
    """A folder for manifests, the spec of the dataset and its manifest."""
    return tmp_path, tinymlds.open(made).spec, (made / store.MANIFEST).read_bytes()


def test_what_we_write_is_read_many_at_a_time(other, made, monkeypatch):
    folder, spec, data = other
    rows = [json.loads(line) for line in data.splitlines()]
    assert {row["status"] for row in rows} >= {"complete", "epoch_cap"}
    assert same_either_way(folder, spec, data, monkeypatch)
    assert list(tinymlds.open(made).manifest) == rows
    assert tinymlds.open(made).manifest[-1] == rows[-1]
    assert tinymlds.open(made).manifest[8:1:-3] == rows[8:1:-3]
    monkeypatch.setattr(reader, "_BLOCK", 1000)
    assert same_either_way(folder, spec, data, monkeypatch), "in blocks of a row or two"


@pytest.mark.parametrize("key", sorted(manifest.ROW_TYPES))
def test_every_value_is_taken_or_refused_the_same_way(other, monkeypatch, key):
    folder, spec, data = other
    lines, taken = data.decode().splitlines(), []
    for value in NUMBERS + TEXTS:
        for line in (0, 11):
            old = f'"{key}":{canonical(json.loads(lines[line])[key])}'
            assert old in lines[line]
            changed = [*lines[:line], lines[line].replace(old, f'"{key}":{value}', 1), *lines[line + 1 :]]
            if same_either_way(folder, spec, ("\n".join(changed) + "\n").encode(), monkeypatch):
                taken.append(value)
    texts = {text for text in TEXTS if text.startswith('"') and "\t" not in text} | {'"0"'} if key == "reason" else set()
    numbers = {"0", "1", "1.0", "0.5", "1e-9", "2", "null", "1e-999", "5", "-0.0", "1E-5", "0." + "1" * 300}
    assert set(taken) <= numbers | {" 1", "1 "} | texts


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[:-1],
        lambda lines: [*lines, lines[-1]],
        lambda lines: [*lines, b"{}"],
        lambda lines: [lines[1], lines[0], *lines[2:]],
        lambda lines: [*lines[:4], *lines[8:], *lines[4:8]],
        lambda lines: [b"", *lines],
        lambda lines: [line + b" " for line in lines],
        lambda lines: [line + b"\r" for line in lines],
        lambda lines: [b"\xef\xbb\xbf" + lines[0], *lines[1:]],
        lambda lines: [line.replace(b",", b", ") for line in lines],
        lambda lines: [b" " * (1 << 17) + lines[0], *lines[1:]],
        lambda lines: [b'{"accuracy":0.5,' + lines[0][1:], *lines[1:]],
        lambda lines: [canonical(dict(reversed(json.loads(line).items()))).encode() for line in lines],
        lambda lines: [json.dumps(dict(reversed(json.loads(line).items()))).encode() for line in lines],
    ],
)
def test_other_lines(other, monkeypatch, change):
    folder, spec, data = other
    lines = change(data.splitlines())
    same_either_way(folder, spec, b"\n".join(lines) + b"\n", monkeypatch)
    same_either_way(folder, spec, b"\n".join(lines), monkeypatch)
    monkeypatch.setattr(reader, "_BLOCK", 1000)
    same_either_way(folder, spec, b"\n".join(lines) + b"\n", monkeypatch)


def test_any_bytes_are_taken_or_refused_the_same_way(other, monkeypatch, draw, share, figure):
    folder, spec, data = other
    count, quick = share(100_000, 1000), 0
    lines = data.splitlines(keepends=True)
    for _ in range(count):
        piece, changed = draw.randrange(len(lines)), list(lines)
        changed[piece] = mutate(lines[piece], random.Random(draw.random()).randbytes(6 * draw.choice([1, 1, 1, 2])))
        quick += same_either_way(folder, spec, b"".join(changed), monkeypatch)
    figure(manifests=count, many_at_a_time=quick)
    assert quick > count / 100, "digits that change into others"
