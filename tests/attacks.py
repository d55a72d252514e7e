"""Folders of strangers: name -> how an intact dataset becomes the attack. The intact one has two networks of xor."""

import json
import os
import shutil
import socket
import sqlite3
from pathlib import Path

from forging import forge, forge_description, forge_rows, forge_tensors

from tinymlds.dataset import store
from tinymlds.dataset.journal import Journal
from tinymlds.spec import Spec

NETWORKS, LOSSES, DATA = "networks/xor-00000.safetensors", "losses/xor-00000.safetensors", "data/xor.safetensors"
MEGABYTE = 1 << 20


def description(change):
    """dataset.json with other values."""
    return lambda folder: forge_description(folder, change)


def recipe(**values):
    """dataset.json with another recipe."""
    return description(lambda about: about["recipe"].update(values))


def rows(change):
    """A manifest whose second row has other values."""
    return lambda folder: forge_rows(folder, lambda found: change(found[1]))


def text(name, change):
    """A file of text (latin-1, to reach every byte) with its true hash; SHA256SUMS itself just changes."""

    def build(folder):
        data = change((folder / name).read_text("latin-1")).encode("latin-1")
        if name == store.SUMS:
            (folder / name).write_bytes(data)
        else:
            forge(folder, name, data)

    return build


def header(name, change):
    """A safetensors file with another header: change(entries) changes it in place, or gives bytes for the whole file."""

    def build(folder):
        data = (folder / name).read_bytes()
        stop = 8 + int.from_bytes(data[:8], "little")
        entries = json.loads(data[8:stop])
        whole = change(entries)
        if not isinstance(whole, bytes):
            new = json.dumps(entries).encode()
            whole = len(new).to_bytes(8, "little") + new + data[stop:]
        forge(folder, name, whole)

    return build


def bias(**values):
    """A header that describes one tensor of the weights otherwise."""
    return header(NETWORKS, lambda entries: entries["head.4.bias"].update(values))


def special(name, make):
    """Something that is no file in place of a file; SHA256SUMS stays."""

    def build(folder):
        path = folder / name
        (folder.parent / "outside").mkdir(exist_ok=True)
        target = folder.parent / "outside" / path.name
        shutil.move(path, target)
        make(path, target)

    return build


def sparse(name, size):
    """A file of zeros that takes no room on a disk; its hash is not computed."""

    def build(folder):
        with (folder / name).open("wb") as file:
            file.truncate(size)

    return build


def deep_folders(folder):
    """So many folders inside one another that Python runs out of frames where it takes two for each."""
    here = Path.cwd()
    os.chdir(folder)
    try:
        for _ in range(700):
            os.mkdir("d")  # noqa: PTH102, a path from here: the whole would be too long
            os.chdir("d")
    finally:
        os.chdir(here)


def odd_names(folder):
    """Names that would write lines of their own on a terminal, or that are no text."""
    (folder / "x\nok: 8 files\x1b[2J").write_bytes(b"")
    with open(os.fsencode(folder) + b"/\xff\xfe", "wb"):  # noqa: PTH123
        pass


def bind(path, _target):
    """A socket, by a short name."""
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as place:
            place.bind(path.name)
    finally:
        os.chdir(here)


def journal(*statements, about=None):
    """An unfinished dataset with a journal of our making, changed by SQL."""

    def build(folder):
        spec = Spec.from_dict(json.loads((folder / store.DESCRIPTION).read_text()), "")
        (folder / store.SUMS).unlink()
        Journal.create(folder, spec, {}, [], {1: {}}).close()
        connection = sqlite3.connect(folder / store.JOURNAL)
        for key, value in (about or {}).items():
            connection.execute("UPDATE about SET value = ? WHERE key = ?", (value, key))
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.close()

    return build


def other_journal(data, name=store.JOURNAL):
    """A file in place of the journal or beside it."""

    def build(folder):
        journal()(folder)
        (folder / name).write_bytes(data)

    return build


def linked_journal(folder):
    journal()(folder)
    shutil.move(folder / store.JOURNAL, folder.parent / "elsewhere.sqlite")
    (folder / store.JOURNAL).symlink_to(folder.parent / "elsewhere.sqlite")


ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)"
ROW = "INSERT INTO networks VALUES ({task}, {index}, {status}, '', 1, 1, 1.0, x'00', x'', x'', x'', {finished}, '0')"


def row(task="'xor'", index=0, status="'complete'", finished=1.0):
    return journal(ROW.format(task=task, index=index, status=status, finished=finished))


ATTACKS = {
    # JSON
    "a key twice": text(store.DESCRIPTION, lambda t: t.replace('{"', '{"seed":1,"', 1)),
    "a key twice in a row": text(store.MANIFEST, lambda t: t.replace('{"', '{"index":0,"', 1)),
    "NaN": text(store.DESCRIPTION, lambda t: t.replace('"lr":0.003', '"lr":NaN')),
    "Infinity in a row": text(store.MANIFEST, lambda t: t.replace('"train_loss":', '"train_loss":Infinity,"x":', 1)),
    "a float beyond all bounds": recipe(threshold=10**400),
    "a float of a megabyte": text(store.DESCRIPTION, lambda t: t.replace("0.003", "1" + "0" * MEGABYTE + ".0")),
    "an integer of a megabyte": text(store.DESCRIPTION, lambda t: t.replace('"seed":0', '"seed":1' + "0" * MEGABYTE)),
    "a string of a megabyte": recipe(trigger_key="set 7\n" * (MEGABYTE // 6)),
    "a million brackets": text(store.DESCRIPTION, lambda _: "[" * MEGABYTE),
    "brackets in a row": text(store.MANIFEST, lambda t: '{"task":' * 50_000 + t),
    "eight megabytes of empty objects": text(store.DESCRIPTION, lambda _: '{"a":[' + "{}," * (2_796_000) + "{}]}"),
    "thirty megabytes of empty lists": text(store.DESCRIPTION, lambda _: "[" + "[]," * (10 * MEGABYTE) + "[]]"),
    "a hundred thousand tasks": description(lambda d: d.update(tasks=[{"task": "xor", "count": 1}] * 100_000)),
    "a description of another kind": description(lambda d: d.update(kind={"networks": 1})),
    "no object": text(store.DESCRIPTION, lambda _: "[]\n"),
    "invalid UTF-8": text(store.DESCRIPTION, lambda t: t.replace("xor", "x\xff", 1)),
    "invalid UTF-8 in a row": text(store.MANIFEST, lambda t: t.replace("xor", "x\xff", 1)),
    "a byte order mark": text(store.DESCRIPTION, lambda t: "\xef\xbb\xbf" + t),
    "a byte order mark in the manifest": text(store.MANIFEST, lambda t: "\xef\xbb\xbf" + t),
    "lines that end like on Windows": text(store.MANIFEST, lambda t: t.replace("\n", "\r\n")),
    "half surrogates": text(store.DESCRIPTION, lambda t: t.replace('"task":"xor"', '"task":"\\ud800"')),
    "a recipe that is a list": description(lambda d: d.update(recipe=[])),
    "a recipe with a field too many": recipe(more=1),
    "true for a number": recipe(hidden=True),
    "a task that is a list": description(lambda d: d["tasks"][0].update(task=["xor"])),
    "a task that is a number": description(lambda d: d["tasks"][0].update(task=5)),
    "a task that leads elsewhere": description(lambda d: d["tasks"][0].update(task="../../xor")),
    "2^63 networks": description(lambda d: d["tasks"][0].update(count=2**63)),
    "2^31 networks": description(lambda d: d["tasks"][0].update(count=2**31)),
    "-1 networks": description(lambda d: d["tasks"][0].update(count=-1)),
    "true networks": description(lambda d: d["tasks"][0].update(count=True)),
    "a future format": description(lambda d: d.update(format=d["format"] + 1)),
    "checkpoints that are no list": description(lambda d: d.update(checkpoints={"0": 1})),
    "gigabytes of sequences": recipe(train_sequences=2**24, steps=64),
    "weights larger than their file": recipe(hidden=64, gru_layers=4, linear_maps=8),
    "a transducer that takes minutes to draw": description(
        lambda d: (d["recipe"].update(states=64, edits=16, family=9999), d["tasks"][0].update(task="transducer_200"))
    ),
    # manifest
    "a line of 32 megabytes": text(store.MANIFEST, lambda t: " " * (32 * MEGABYTE) + t),
    "a line without an end": text(store.MANIFEST, lambda t: t[:-1]),
    "a row too many": text(store.MANIFEST, lambda t: t + t.splitlines()[-1] + "\n"),
    "a row that is a list": text(store.MANIFEST, lambda t: "[]\n" + t),
    "an index that is true": rows(lambda r: r.update(index=True)),
    "an index that is a float": rows(lambda r: r.update(index=1.0)),
    "a negative row": rows(lambda r: r.update(row=-1)),
    "2^63 epochs": rows(lambda r: r.update(epochs=2**63)),
    "epochs of 4300 digits": rows(lambda r: r.update(epochs=10**4299)),
    "a loss of 400 digits": rows(lambda r: r.update(validation_loss=10**400)),
    "an accuracy of 400 digits": rows(lambda r: r.update(accuracy=10**400)),
    "a status that nobody has": rows(lambda r: r.update(status="great")),
    "a shard elsewhere": rows(lambda r: r.update(shard="../outside.safetensors")),
    "a hash that is a number": rows(lambda r: r.update(weights_sha256=0)),
    # checksums
    "a name that leads outside": text(store.SUMS, lambda t: t + "0" * 64 + "  ../../../../etc/hostname\n"),
    "an absolute name": text(store.SUMS, lambda t: t + "0" * 64 + "  /etc/hostname\n"),
    "a device by name": text(store.SUMS, lambda t: t + "0" * 64 + "  /dev/zero\n"),
    "a hidden name": text(store.SUMS, lambda t: t + "0" * 64 + "  .git/config\n"),
    "a name twice": text(store.SUMS, lambda t: t + t.splitlines()[0] + "\n"),
    "checksums in one line of 32 megabytes": text(store.SUMS, lambda _: "0" * (32 * MEGABYTE)),
    "sixteen million empty lines": text(store.SUMS, lambda t: t + "\n" * (16 * MEGABYTE)),
    "a hundred thousand names": text(store.SUMS, lambda t: t + "".join(f"{0:064}  {k:x}\n" for k in range(100_000))),
    "checksums that end like on Windows": text(store.SUMS, lambda t: t.replace("\n", "\r\n")),
    "checksums that are no text": text(store.SUMS, lambda _: "\xff" * 1000),
    "checksums without a manifest": text(
        store.SUMS, lambda t: "".join(f"{x}\n" for x in t.splitlines() if "mani" not in x)
    ),
    "checksums of a hundred gigabytes": sparse(store.SUMS, 10**11),
    # safetensors
    "a header of 2^63 bytes": header(NETWORKS, lambda _: b"\xff" * 7 + b"\x7f" + b"{}"),
    "a header of a megabyte in nothing": header(NETWORKS, lambda _: MEGABYTE.to_bytes(8, "little")),
    "a megabyte of nested header": header(NETWORKS, lambda _: MEGABYTE.to_bytes(8, "little") + b"[" * MEGABYTE),
    "a shape whose product overflows": bias(shape=[2**32, 2**32]),
    "a shape of zero and 2^63": header(
        DATA, lambda e: e.update(more={"dtype": "U8", "shape": [0, 2**63], "data_offsets": [0, 0]})
    ),
    "a shape of zero and much": header(
        DATA, lambda e: e.update(more={"dtype": "U8", "shape": [0, *[2**20] * 5], "data_offsets": [0, 0]})
    ),
    "a shape of long numbers": bias(shape=[10**4299] * 8),
    "a negative shape": bias(shape=[-2, -8]),
    "a shape of true": bias(shape=[True, 16]),
    "a shape of floats": bias(shape=[2.0, 8]),
    "a shape that is a string": bias(shape="28"),
    "nine dimensions": bias(shape=[1] * 7 + [2, 8]),
    "negative offsets": bias(data_offsets=[-64, 0]),
    "offsets of 2^63": bias(data_offsets=[2**63, 2**63 + 64]),
    "offsets the wrong way round": bias(data_offsets=[64, 0]),
    "overlapping tensors": bias(data_offsets=[0, 64]),
    "another dtype": bias(dtype="I32"),
    "a dtype that is a list": bias(dtype=["F32"]),
    "a tensor that is null": header(NETWORKS, lambda e: e.update({"head.4.bias": None})),
    "a tensor too few": header(NETWORKS, lambda e: (e.pop("head.4.bias"), None)[1]),
    "metadata that is nested": header(NETWORKS, lambda e: e.update(__metadata__={"tinymlds": "[" * 100_000})),
    "metadata that is a number": header(NETWORKS, lambda e: e.update(__metadata__={"tinymlds": 1})),
    "two keys of metadata": header(NETWORKS, lambda e: e.update(__metadata__={"tinymlds": "{}", "x": ""})),
    "a tensor with a name of a megabyte": header(NETWORKS, lambda e: e.update({"\n" * 100_000: {}})),
    "offsets that wrap around": lambda folder: forge_tensors(
        folder, LOSSES, lambda t: t["offsets"].__setitem__(slice(None), [0, 2**63 - 1, 4])
    ),
    "a pickle": header(NETWORKS, lambda _: b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR."),
    "a gigabyte of weights": sparse(NETWORKS, 10**9),
    "a graph of a gigabyte": sparse("data/xor.dot", 10**9),
    # what is no file
    "a link to a file": special(NETWORKS, lambda path, target: path.symlink_to(target)),
    "a link to the manifest": special(store.MANIFEST, lambda path, target: path.symlink_to(target)),
    "a link to the checksums": special(store.SUMS, lambda path, target: path.symlink_to(target)),
    "a link to a folder": special("networks", lambda path, target: path.symlink_to(target)),
    "a link to itself": special(NETWORKS, lambda path, _: path.symlink_to(path)),
    "a link to the folder above": lambda folder: (folder / "networks" / "up").symlink_to(folder),
    "a pipe": special(NETWORKS, lambda path, _: os.mkfifo(path)),
    "a pipe for checksums": special(store.SUMS, lambda path, _: os.mkfifo(path)),
    "a pipe for a description": special(store.DESCRIPTION, lambda path, _: os.mkfifo(path)),
    "a socket": special(NETWORKS, bind),
    "a folder for a file": special(NETWORKS, lambda path, _: path.mkdir()),
    "a file for a folder": special("networks", lambda path, _: path.write_bytes(b"")),
    "folders inside folders": deep_folders,
    "names that are no text": odd_names,
    # a journal
    "a journal that is no database": other_journal(b"SQLite format 3\0" + b"?" * 5000),
    "an empty journal": other_journal(b""),
    "a journal with an endless view": journal(
        "DROP TABLE about", f"CREATE VIEW about AS {ENDLESS} SELECT x key, x value FROM c"
    ),
    "a journal with a trigger": journal("CREATE TRIGGER t AFTER UPDATE ON about BEGIN DELETE FROM networks; END"),
    "a journal with a generated column": journal(
        "DROP TABLE runs", "CREATE TABLE runs (run INTEGER PRIMARY KEY, info TEXT AS (zeroblob(900000000)))"
    ),
    "a journal with more tables": journal("CREATE TABLE more (x)"),
    "a journal without tables": journal("DROP TABLE quarantine"),
    "a journal for nothing": journal("DELETE FROM about"),
    "a journal with a number for its spec": journal(about={"spec": 5}),
    "a journal with bytes for its spec": journal(about={"spec": b"\xff"}),
    "a journal with brackets for its spec": journal(about={"spec": "[" * 100_000}),
    "a journal with a list for its spec": journal(about={"spec": "[]"}),
    "a journal with a list for its base": journal(about={"base": "[]"}),
    "a journal on a base of others": journal(about={"base": '{"parity":1000}'}),
    "a journal on a negative base": journal(about={"base": '{"xor":-1000}'}),
    "a journal of another task": row(task="'parity'"),
    "a journal of no status": row(status="'great'"),
    "a journal that ends at no time": row(finished="'never'"),
    "a journal that names a further file": other_journal(
        bytes(2000) + bytes.fromhex("d9d505f920a163d7"), store.JOURNAL + "-journal"
    ),
    "a journal that writes ahead": journal("PRAGMA journal_mode=WAL"),
    "a link to a journal": linked_journal,
    "a pipe for a journal": lambda folder: (
        journal()(folder),
        (folder / store.JOURNAL).unlink(),
        os.mkfifo(folder / store.JOURNAL),
    ),
}

if os.name == "posix" and os.geteuid() == 0:
    ATTACKS["a device"] = special(NETWORKS, lambda path, _: os.mknod(path, 0o20600, os.makedev(1, 5)))
