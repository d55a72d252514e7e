"""A dataset of one run and eight parts of it that were made apart, for tests of merging, and what a merge came to."""

from contextlib import closing
from dataclasses import replace

from forging import TINY

import tinymlds
from tinymlds.dataset import reader, schema, sealing, store
from tinymlds.dataset.journal import Entry, Journal
from tinymlds.dataset.lock import RunLock
from tinymlds.spec import Setting
from tinymlds.training import backends
from tinymlds.training.loop import train_networks
from tinymlds.verification.merging.ledger import identity

PARTS, COUNT = 8, 9
OPTIONS = {"transducers": 2, "checkpoints": (1,), "workers": 1, **TINY}


def make(folder, part=None, count=COUNT, **options):
    """A dataset of two tasks, or a part of it."""
    tinymlds.train(count=count, out=folder, part=part, **OPTIONS | options)
    return folder


def merge(folders, out, **options):
    return tinymlds.merge(folders, out, workers=1, **options)


def make_whole_and_parts(root):
    """The dataset of one run, and its eight parts."""
    make(root / "whole")
    for number in range(1, PARTS + 1):
        make(root / f"p{number}", (number, PARTS))
    return root


def parts_in(root):
    return [root / f"p{number}" for number in range(1, PARTS + 1)]


def files(folder):
    """The hashes of what a dataset folder holds, but for the provenance."""
    sums = reader.read_sums(folder)
    return {name: digest for name, digest in sums.items() if name != store.PROVENANCE}


def held(folder):
    """What a merge came to: the files of a sealed folder, or the networks of an unfinished one."""
    journal = Journal.open(folder)
    if journal is None:
        return files(folder)
    with closing(journal):
        return journal.spec, networks_in(folder, journal)


def networks_in(folder, journal):
    """Task, index and identity of all networks of an unfinished folder."""
    rows = sealing.rows_below(folder, sealing.limits(journal.spec, journal.base))
    found = [(row["task"], row["index"], identity(row)) for row in rows]
    for task, indices in journal.spec.indices.items():
        outcomes = [entry.outcome for entry in journal.entries(task, indices)]
        found += [(task, outcome.index, identity(schema.columns_of(outcome))) for outcome in outcomes]
    return sorted(found)


def forge_third(root, folder):
    """Part 3, in which network 2 of transducer_000 is really network 100: rightly trained, and described rightly."""
    honest = tinymlds.open(root / "p3")
    spec, seed = honest.spec, honest.spec.seed
    cpu, task = backends.load("cpu"), "transducer_000"
    false = next(train_networks(cpu, Setting(task, seed, spec.recipe), range(100, 101), spec.checkpoints))
    folder.mkdir()
    with RunLock(folder), closing(Journal.create(folder, spec, {}, [], {})) as journal:
        entries = [entry for each in honest.tasks for entry in sealing.entries_from(honest, each, 0, {})]
        run = journal.start_run({"host": "elsewhere"})
        for entry in entries:
            outcome = replace(false, index=2) if (entry.task, entry.outcome.index) == (task, 2) else entry.outcome
            journal.add([Entry(entry.task, run, outcome, 0.0)])
        sealing.seal(folder, journal)
    assert tinymlds.verify(folder).ok
    return folder
