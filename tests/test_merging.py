"""Parts that were made apart are merged: in any order, grouping and number the bytes of one run; what is wrong is named."""

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from forging import TINY, forge, forge_description, forge_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from running import ROOT, cli_command, lines_of
from typer.testing import CliRunner

import tinymlds
from tinymlds import merging, reader, sealing, store
from tinymlds.cli import app, console
from tinymlds.errors import DatasetError, TinymldsError, UsageError
from tinymlds.journal import Entry, Journal
from tinymlds.kernels import backend
from tinymlds.merging.ledger import identity
from tinymlds.runlock import RunLock
from tinymlds.training import Status, train_networks
from tinymlds.verification import pick

PARTS, COUNT = 8, 9
OPTIONS = {"transducers": 2, "checkpoints": (1,), "workers": 1, **TINY}


def make(folder, part=None, count=COUNT, **options):
    """A dataset of two tasks, or a part of it."""
    tinymlds.train(count=count, out=folder, part=part, **OPTIONS | options)
    return folder


def merge(folders, out, **options):
    return tinymlds.merge(folders, out, workers=1, **options)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One run's dataset, and eight parts of it that were made apart. Not to be changed."""
    root = tmp_path_factory.mktemp("made")
    make(root / "whole")
    for number in range(1, PARTS + 1):
        make(root / f"p{number}", (number, PARTS))
    return root


@pytest.fixture(scope="module")
def parts(made):
    return [made / f"p{number}" for number in range(1, PARTS + 1)]


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
        found += [(task, outcome.index, identity(sealing.columns_of(outcome))) for outcome in outcomes]
    return sorted(found)


@pytest.fixture(scope="module")
def forged(made, tmp_path_factory):
    """Part 3, in which network 2 of transducer_000 is really network 100: rightly trained, and described rightly."""
    honest, folder = tinymlds.open(made / "p3"), tmp_path_factory.mktemp("forged") / "q3"
    spec, seed = honest.spec, honest.spec.seed
    cpu, task = backend.load("cpu"), "transducer_000"
    false = next(train_networks(cpu, task, seed, spec.recipe, range(100, 101), spec.checkpoints))
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


# ------------------------------------------------------------------ the same as one run


def test_eight_parts_are_one_dataset(made, parts, tmp_path, draw):
    folders = [*parts, *draw.choices(parts, k=3)]
    draw.shuffle(folders)
    seen = []
    result = merge(folders, tmp_path / "all", progress=lambda *state: seen.append(state))
    assert result.ok
    assert (result.digest, result.networks, result.total) == (tinymlds.open(made / "whole").digest, 18, 18)
    assert files(tmp_path / "all") == files(made / "whole")
    assert tinymlds.verify(tmp_path / "all").ok
    assert {source.folder: source.added for source in result.sources} == {str(p): len(tinymlds.open(p)) for p in parts}
    assert set(seen) == {(str(p), n, len(tinymlds.open(p))) for p in parts for n in range(1, len(tinymlds.open(p)) + 1)}


def test_parts_with_many_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "SHARD", 2)
    make(tmp_path / "whole", count=7)
    parts = [make(tmp_path / f"{number}", (number, 2), 7) for number in (1, 2)]
    assert merge(parts, tmp_path / "all").ok
    assert files(tmp_path / "all") == files(tmp_path / "whole")
    # A sealed dataset of fewer networks grows: whole shards stay where they are.
    make(tmp_path / "small", count=5)
    assert merge(parts, tmp_path / "small").ok
    assert files(tmp_path / "small") == files(tmp_path / "whole")
    assert tinymlds.verify(tmp_path / "small").ok


def test_figures_are_measured_once(made, parts, forged, tmp_path, monkeypatch):
    """Checking a part measures its networks; sealing takes what that found, and measures what earlier merges brought."""
    measured = []

    def measure(*arguments):
        measured.append(arguments)
        return real(*arguments)

    real = sealing.measure
    monkeypatch.setattr(sealing, "measure", measure)
    merge(parts, tmp_path / "all")
    assert measured == []
    merge(parts[:4], tmp_path / "some")
    merge([tmp_path / "some", *parts[4:], forged], tmp_path / "other")  # a conflict: nothing of `some` is taken
    merge([*parts[:2], *parts[3:]], tmp_path / "other")
    merge([parts[2]], tmp_path / "other")
    assert len(measured) == 18 - len(tinymlds.open(parts[2]))
    for name in ("all", "other"):
        assert files(tmp_path / name) == files(made / "whole")


def test_the_provenance_says_where_networks_come_from(made, parts, tmp_path):
    merge(parts[:4], tmp_path / "some", retrain=1, seed=7)
    merge([tmp_path / "some", *parts[4:]], tmp_path / "all")
    lines = lines_of(tmp_path / "all" / store.PROVENANCE)
    runs = {line["run"]: line for line in lines if "index" not in line}
    opened = {number: tinymlds.open(parts[number - 1]) for number in (2, 7)}
    origins = {number: {(row["task"], row["index"]) for row in part.manifest} for number, part in opened.items()}
    digest = opened[2].digest
    for line in lines:
        if "index" in line and (line["task"], line["index"]) in origins[2]:
            first, second = runs[line["run"]]["merged"]
            retrained = {"retrained": 1, "retrain_seed": 7}
            assert first == {"folder": "p2", "part": "2/8", "networks": len(origins[2]), "digest": digest, **retrained}
            assert second == {"folder": "some", "networks": 9}
        elif "index" in line and (line["task"], line["index"]) in origins[7]:
            assert [each["folder"] for each in runs[line["run"]]["merged"]] == ["p7"]
            assert runs[line["run"]]["backend"] == "cpu"
    assert len([line for line in lines if "index" in line]) == 18
    before = (tmp_path / "all" / store.PROVENANCE).read_bytes()
    assert merge(parts, tmp_path / "all").ok
    assert (tmp_path / "all" / store.PROVENANCE).read_bytes() == before


# ------------------------------------------------------------------ laws

some = st.lists(st.integers(1, PARTS), min_size=1, max_size=4)


@pytest.fixture
def law(share, figure):
    """law(check, *strategies): try check(place, *drawn) in a place of its own, again and again."""

    def hold(check, *strategies):
        examples = 0

        @settings(max_examples=share(500, 8), deadline=None, database=None)
        @given(st.tuples(*strategies))
        def try_once(drawn):
            nonlocal examples
            with tempfile.TemporaryDirectory() as place:
                check(Path(place), *drawn)
            examples += 1

        try_once()
        figure(examples=examples)

    return hold


def test_merging_is_commutative(made, law):
    def check(place, numbers, seed):
        folders = [made / f"p{number}" for number in numbers]
        merge(folders, place / "a")
        merge(random.Random(seed).sample(folders, len(folders)), place / "b")
        assert held(place / "a") == held(place / "b")

    law(check, st.lists(st.integers(1, PARTS), min_size=2, max_size=12), st.integers())


def test_merging_is_associative(made, law):
    def check(place, *groups):
        a, b, c = ([made / f"p{number}" for number in numbers] for numbers in groups)
        merge([*a, *b], place / "ab")
        merge([place / "ab", *c], place / "(ab)c")
        merge([*b, *c], place / "bc")
        merge([*a, place / "bc"], place / "a(bc)")
        assert held(place / "(ab)c") == held(place / "a(bc)")

    law(check, some, some, st.one_of(some, st.just(list(range(1, PARTS + 1)))))


def test_merging_is_idempotent(made, law):
    def check(place, numbers, again):
        folders = [made / f"p{number}" for number in numbers]
        merge(folders, place / "once")
        once = held(place / "once")
        merge([*folders, *(folders[k % len(folders)] for k in again)], place / "twice")
        assert held(place / "twice") == once
        merge([place / "once", *folders], place / "once")
        assert held(place / "once") == once
        merge([place / "once", place / "twice"], place / "both")
        assert held(place / "both") == once

    law(check, some, some)


# ------------------------------------------------------------------ what is missing


def test_missing_parts_are_named_and_come_later(made, parts, tmp_path, capsys):
    out = tmp_path / "all"
    first = merge([p for k, p in enumerate(parts, 1) if k not in (3, 7)], out)
    assert (first.ok, first.digest, first.missing, first.problems) == (False, None, ["part 3/8", "part 7/8"], [])
    with pytest.raises(DatasetError, match="not finished"):
        tinymlds.open(out)
    console.print_status(tinymlds.status(out))
    assert "no run is under way; networks came with a merge" in capsys.readouterr().out
    assert merge([out], out).missing == ["part 3/8", "part 7/8"]
    assert merge([parts[2]], out).missing == ["part 7/8"]
    last = merge([parts[6]], out)
    assert (last.ok, last.missing) == (True, [])
    assert files(out) == files(made / "whole")


def test_train_completes_what_is_missing(made, parts, tmp_path):
    merge(parts[1:], tmp_path / "all")
    missing = len(tinymlds.open(parts[0]))
    assert make(tmp_path / "all") == tmp_path / "all"
    lines = lines_of(tmp_path / "all" / store.PROVENANCE)
    own = {line["run"] for line in lines if "index" not in line and "merged" not in line}
    assert len([line for line in lines if "index" in line and line["run"] in own]) == missing
    assert files(tmp_path / "all") == files(made / "whole")


def test_without_parts_indices_are_named(made, tmp_path):
    """A whole dataset of fewer networks, and one that was interrupted, merge too; nobody knows of parts."""
    make(tmp_path / "few", count=3)
    spec = tinymlds.open(made / "whole").spec
    (tmp_path / "started").mkdir()
    Journal.create(tmp_path / "started", spec, {}, [], {}).close()
    result = merge([tmp_path / "few", tmp_path / "started"], tmp_path / "all")
    assert result.missing == ["transducer_000 3-8", "transducer_001 3-8"]
    assert merge([made / "whole"], tmp_path / "all").ok


def test_counts_may_differ(made, parts, tmp_path):
    """A part with a larger count than the others: the dataset has the larger one, and the others are short of it."""
    larger = make(tmp_path / "larger", (1, PARTS), 20)
    result = merge([larger, *parts], tmp_path / "all")
    assert (result.total, result.networks) == (40, 18 + len(tinymlds.open(larger)) - len(tinymlds.open(parts[0])))
    assert len(result.missing) == PARTS - 1
    assert result.missing[0].endswith("networks of part 2/8")
    make(tmp_path / "all", count=20)
    make(tmp_path / "once", count=20)
    assert files(tmp_path / "all") == files(tmp_path / "once")


def test_a_merged_dataset_grows_like_any_other(made, parts, tmp_path):
    merge(parts, tmp_path / "all")
    make(tmp_path / "all", count=12)
    make(tmp_path / "once", count=12)
    assert files(tmp_path / "all") == files(tmp_path / "once")


# ------------------------------------------------------------------ tampering


def test_a_damaged_part_is_named_and_the_others_are_merged(made, parts, tmp_path, draw):
    """Eight parts in random order, with repeats and a damaged copy of one: the right digest, and the damage is named."""
    damaged = tmp_path / "copy of p3"
    shutil.copytree(parts[2], damaged)
    name = draw.choice(sorted(files(damaged)))
    data = bytearray((damaged / name).read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    (damaged / name).write_bytes(data)
    folders = [*parts, damaged, draw.choice(parts)]
    draw.shuffle(folders)
    result = merge(folders, tmp_path / "all")
    assert result.digest == tinymlds.open(made / "whole").digest
    assert not result.ok
    assert any(str(damaged / name) in problem for problem in result.problems)
    assert [source.folder for source in result.sources if source.problems] == [str(damaged)]
    alone = merge([*parts[:2], damaged, *parts[3:]], tmp_path / "without")
    assert (alone.digest, alone.missing) == (None, ["part 3/8"])


def test_a_forged_twin_is_a_conflict(made, parts, forged, tmp_path, draw):
    """Nothing is chosen: neither of the two is taken, in whatever order they come."""
    folders = [*parts, forged]
    draw.shuffle(folders)
    result = merge(folders, tmp_path / "all")
    [conflict] = result.conflicts
    assert set(conflict.folders) == {str(forged), str(parts[2])}
    assert (conflict.networks, conflict.first, conflict.right) == (1, ("transducer_000", 2), None)
    assert "hold different networks: transducer_000 2; nothing of them was taken" in result.problems[0]
    assert (result.ok, result.digest, result.missing) == (False, None, ["part 3/8"])
    again = merge([forged, parts[2]], tmp_path / "all", retrain=5)
    assert again.conflicts == []  # training again has refused the forged one
    assert again.digest == tinymlds.open(made / "whole").digest


def test_training_again_says_which_twin_is_right(parts, forged, tmp_path):
    """Where the picked networks do not show the forgery, those in conflict are trained again."""
    number = len(tinymlds.open(forged))
    seed = next(seed for seed in range(100) if 0 not in pick(number, 1, seed))  # network 0 of the folder is the forged one
    result = merge([parts[2], forged], tmp_path / "all", retrain=1, seed=seed)
    [conflict] = result.conflicts
    assert conflict.right == {str(parts[2]): 1, str(forged): 0}
    assert f"Of 1 trained again, 1 of {parts[2]} and 0 of {forged} came out as they are there" in str(conflict)
    assert not (tmp_path / "all" / store.JOURNAL).exists()
    assert list((tmp_path / "all").iterdir()) == []


def test_a_forged_part_alone_is_caught_by_training_again(parts, forged, tmp_path):
    folders = [*parts[:2], forged, *parts[3:]]
    assert merge(folders, tmp_path / "unsuspecting").ok  # hashes and losses bear it out
    result = merge(folders, tmp_path / "all", retrain=3)
    assert result.problems == [f"{forged}: transducer_000 2 is not what training gives; it was made in another way"]
    assert (result.digest, result.missing) == (None, ["part 3/8"])
    assert {source.retrained for source in result.sources} <= {1, 2, 3}
    assert merge([parts[2]], tmp_path / "all").ok


def test_what_is_there_stays_when_a_forged_part_comes(made, parts, forged, tmp_path):
    merge(parts, tmp_path / "all")
    before = held(tmp_path / "all")
    result = merge([forged], tmp_path / "all")
    assert (result.ok, result.digest) == (False, tinymlds.open(made / "whole").digest)
    assert f"{tmp_path / 'all'} stays as it is" in result.problems[0]
    assert held(tmp_path / "all") == before
    merge(parts[:4], tmp_path / "some")
    before = held(tmp_path / "some")
    assert merge([forged], tmp_path / "some").conflicts[0].kept
    assert held(tmp_path / "some") == before


def change_entry(folder, change):
    """Another network in an unfinished folder: change(outcome) is one that the journal takes for its own."""
    with closing(Journal.open(folder)) as journal:
        task, indices = next(iter(journal.spec.indices.items()))
        entry = next(iter(journal.entries(task, indices)))
        journal.add([entry._replace(outcome=change(entry.outcome))])
    return f"{folder}: {task} {entry.outcome.index}"


def without_epochs(outcome, weights):
    """As if it had diverged at its first step; it would have the weights of before then."""
    nothing, reason = np.empty(0, np.float32), "training loss is not finite at step 1"
    arrays = {"weights": weights, "train_losses": nothing, "validation_losses": nothing}
    return replace(outcome, status=Status.DIVERGED, reason=reason, checkpoints=np.empty((0, weights.size)), **arrays)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda outcome: replace(outcome, weights=outcome.weights * 2), "has validation loss"),
        (lambda outcome: replace(outcome, validation_losses=outcome.validation_losses * 2), "has validation loss"),
        (lambda outcome: replace(outcome, status=Status.STALLED), "did not end as stalled by its losses"),
        (lambda outcome: replace(outcome, checkpoints=outcome.checkpoints * 2), "has a checkpoint of epoch 1"),
        (lambda outcome: replace(outcome, checkpoints=outcome.checkpoints[:0]), "has 0 checkpoints"),
        (lambda outcome: replace(outcome, train_losses=outcome.train_losses * np.nan), "has numbers that are not finite"),
        (lambda outcome: replace(outcome, status=Status.DIVERGED, reason="x" * 70_000), "did not end as diverged"),
        (lambda outcome: without_epochs(outcome, outcome.weights), "has other weights than before training"),
        (lambda outcome: without_epochs(outcome, outcome.weights * np.nan), "has numbers that are not finite"),
    ],
)
def test_an_unfinished_folder_is_checked_too(parts, tmp_path, change, named):
    merge(parts[:2], tmp_path / "some")
    where = change_entry(tmp_path / "some", change)
    result = merge([tmp_path / "some", *parts[2:]], tmp_path / "all")
    assert any(problem.startswith(f"{where} {named}") for problem in result.problems)
    assert result.missing == ["part 1/8", "part 2/8"]


def damage(folder, place=0):
    """Flip a bit of one network in a journal, as a disk may."""
    with closing(sqlite3.connect(folder / store.JOURNAL)) as connection:
        rows = connection.execute("SELECT rowid, weights FROM networks ORDER BY rowid").fetchall()
        weights = bytearray(rows[place][1])
        weights[100] ^= 1
        connection.execute("UPDATE networks SET weights = ? WHERE rowid = ?", (bytes(weights), rows[place][0]))
        connection.commit()


def test_what_a_disk_has_damaged_comes_from_a_part_that_has_it(made, parts, tmp_path):
    out = tmp_path / "all"
    merge(parts[:4], out)
    damage(out)
    assert merge(parts[4:], out).missing == ["1 networks of part 1/8"], "nobody has it"
    assert files(merge(parts, out).folder) == files(made / "whole")
    merge(parts[:4], tmp_path / "again")
    damage(tmp_path / "again", 3)
    assert files(merge(parts, tmp_path / "again").folder) == files(made / "whole")


def test_a_damaged_journal_is_named_and_gives_nothing(parts, tmp_path):
    merge(parts[:4], tmp_path / "some")
    damage(tmp_path / "some")
    result = merge([tmp_path / "some", parts[0]], tmp_path / "all")
    [problem] = result.problems
    assert "is not what was written); the command that makes its dataset makes that network again" in problem
    assert [source.added for source in result.sources] == [0, len(tinymlds.open(parts[0]))]


def test_an_index_that_is_no_whole_number_is_damage(parts, tmp_path):
    merge(parts[:4], tmp_path / "some")
    with closing(sqlite3.connect(tmp_path / "some" / store.JOURNAL)) as connection:
        connection.execute('UPDATE networks SET "index" = "index" + 0.5 WHERE rowid = 1')
        connection.commit()
    result = merge([tmp_path / "some"], tmp_path / "all")
    assert "no whole number" in result.problems[0]
    with pytest.raises(DatasetError, match="no whole number"):
        merge([parts[5]], tmp_path / "some")


def test_what_the_output_folder_holds_is_read_only_where_others_hold_it_too(parts, tmp_path):
    merge(parts[:4], tmp_path / "some")
    with closing(merging.Ledger()) as ledger:
        read = lambda: [network[:2] for batch in merging._held(tmp_path / "some", ledger) for network in batch]  # noqa: E731
        assert read() == []
        ledger.add(1, [("transducer_000", 0, b""), ("transducer_001", 4, b"")])
        assert read() == [("transducer_000", 0), ("transducer_001", 4)]


def test_what_strangers_say_of_runs_harms_nothing(parts, tmp_path):
    """Times that are no numbers are damage; long texts and keys that mean something else are left out."""
    strange = tmp_path / "strange"
    shutil.copytree(parts[0], strange)
    lines = lines_of(strange / store.PROVENANCE)

    def write(lines):
        forge(strange, store.PROVENANCE, "".join(json.dumps(line) + "\n" for line in lines).encode())

    write([{**line, "seconds": "Infinity"} if "index" in line else line for line in lines])
    damaged = merge([strange], tmp_path / "damaged")
    assert "provenance.jsonl is damaged" in damaged.problems[0]
    run = {"run": 1, "task": "xor", "merged": "yes", "note": "n" * 60_000}
    write([run, *(line for line in lines if "index" in line)])
    assert merge([strange, *parts[1:]], tmp_path / "all").ok
    assert tinymlds.verify(tmp_path / "all").ok
    first = lines_of(tmp_path / "all" / store.PROVENANCE)[0]
    assert (first["run"], first["merged"][0]["folder"], "note" in first) == (1, "strange", False)


def test_a_part_that_changes_while_it_is_merged(parts, tmp_path, monkeypatch):
    """What was checked is what is taken: other bits that come afterwards are refused."""
    folder = tmp_path / "p1"
    shutil.copytree(parts[0], folder)
    check = merging._check

    def check_and_change(origin, source, checks):
        good = check(origin, source, checks)
        if origin.folder == folder:
            name = store.shard_name("networks", "transducer_000", 0)
            data = bytearray((folder / name).read_bytes())
            data[-1] ^= 1
            (folder / name).write_bytes(data)
        return good

    monkeypatch.setattr(merging, "_check", check_and_change)
    result = merge([folder, *parts[1:]], tmp_path / "all")
    assert "does not match SHA256SUMS" in result.problems[0]
    assert (result.digest, len(result.missing)) == (None, 1)


# ------------------------------------------------------------------ wrong inputs


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"seed": 1}, "made with seed 1, and .* with 0"),
        ({"lr": 0.01}, "made with lr 0.01, and .* with 0.003"),
        ({"transducers": 1}, "made with tasks transducer_000, and .* with transducer_000, transducer_001"),
        ({"checkpoints": (0,)}, r"made with checkpoints \[0\], and .* with \[1\]"),
    ],
)
def test_parts_of_another_dataset_are_refused(parts, tmp_path, options, named):
    other = make(tmp_path / "other", (2, PARTS), **options)
    with pytest.raises(UsageError, match=named):
        merge([parts[0], other], tmp_path / "all")
    assert not (tmp_path / "all").exists()
    make(tmp_path / "whole", **options, count=1)
    before = held(tmp_path / "whole")
    with pytest.raises(UsageError, match="they are not of one dataset"):
        merge([parts[0]], tmp_path / "whole")
    assert held(tmp_path / "whole") == before


def test_folders_that_cannot_be_merged(made, parts, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").touch()
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    Journal.create(unfinished, tinymlds.open(parts[1]).spec, {}, [], {}).close()
    tinymlds.generate(transducers=1, out=tmp_path / "sequences", **TINY)
    inside = tmp_path / "p1" / "all"
    shutil.copytree(parts[0], tmp_path / "p1")
    for folders, out, error, message in [
        ([], "all", UsageError, "at least one folder"),
        ([tmp_path / "none"], "all", DatasetError, "is not a folder"),
        ([tmp_path / "empty"], "all", DatasetError, "not a tinymlds dataset"),
        ([tmp_path / "none"], "none", DatasetError, "is not a folder"),
        ([unfinished], "all", UsageError, "is part 2/8 and not finished; the command that started it goes on with it"),
        ([tmp_path / "sequences"], "all", UsageError, "sequences without networks"),
        ([tmp_path / "p1"], inside, UsageError, "is inside"),
        ([tmp_path / "p1"], tmp_path, UsageError, "is inside|not empty"),
        ([parts[0]], "notes", UsageError, "not empty and not a tinymlds dataset"),
        ([parts[0]], "sequences", UsageError, "sequences without networks"),
        ([parts[1]], "p1", UsageError, "is part 1/8 of a dataset; choose another --out"),
        ([parts[1]], "unfinished", UsageError, "is part 2/8 of a dataset; choose another --out"),
    ]:
        with pytest.raises(error, match=message):
            merge(folders, tmp_path / out)
        assert not (tmp_path / "all").exists(), message
    for wrong in ({"retrain": -1}, {"seed": -1}, {"retrain": 1.5}):
        with pytest.raises(UsageError, match="at least 0"):
            merge(parts, tmp_path / "all", **wrong)


def test_a_dataset_that_grows_is_merged_into(made, parts, tmp_path, monkeypatch):
    """Its first shards are not in its journal."""
    monkeypatch.setattr(store, "SHARD", 2)
    make(tmp_path / "grows", count=4)
    larger = make(tmp_path / "larger", (1, PARTS), COUNT)
    assert merge([larger], tmp_path / "grows").missing
    with pytest.raises(UsageError, match="is a dataset that grows; finish it first, or merge into it"):
        merge([tmp_path / "grows"], tmp_path / "all")
    make(tmp_path / "grows", count=COUNT)
    make(tmp_path / "once", count=COUNT)
    assert files(tmp_path / "grows") == files(tmp_path / "once")


def test_another_version_is_refused_by_name(parts, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(parts[0], other)
    forge_description(other, lambda description: description.update(numerics=1))
    with pytest.raises(UsageError, match="numerics version 1"):
        merge([other], tmp_path / "all")


def test_a_part_with_rows_that_are_wrong_is_named(parts, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(parts[0], other)
    forge_rows(other, lambda rows: rows[0].update(accuracy=0.5))
    assert "measures otherwise" in " ".join(merge([other], tmp_path / "all").problems)


def test_a_folder_in_use_is_left_alone(parts, tmp_path):
    (tmp_path / "all").mkdir()
    with RunLock(tmp_path / "all"), pytest.raises(UsageError, match="another run works on"):
        merge(parts[:1], tmp_path / "all", progress=lambda *_: pytest.fail("it was checked for nothing"))


# ------------------------------------------------------------------ interruptions


def test_merging_can_be_interrupted_anywhere(made, parts, tmp_path, monkeypatch):
    """Fail each transaction and each commit of a merge in turn: what was added stays, and the same merge ends the same."""
    add, commit = Journal.add, store.commit
    steps = []

    def counted(function):
        def fail_at(*arguments):
            steps.append(function)
            if len(steps) == failing:
                raise TinymldsError("no room")
            return function(*arguments)

        return fail_at

    monkeypatch.setattr(Journal, "add", counted(add))
    monkeypatch.setattr(store, "commit", counted(commit))
    failing, kept, result = 0, 0, None
    while result is None:
        failing, steps = failing + 1, []
        try:
            result = merge(parts, tmp_path / "all")
        except TinymldsError:
            now = len(held(tmp_path / "all")[1])
            assert now >= kept
            kept = now
    assert failing > 10
    assert result.ok
    assert files(tmp_path / "all") == files(made / "whole")


def networks_after(folder):
    """What a killed merge has left, sealed or not."""
    journal = Journal.open(folder) if folder.exists() else None
    if journal is not None:
        with closing(journal):
            return networks_in(folder, journal)
    sealed = (folder / store.SUMS).exists()
    return [(row["task"], row["index"], identity(row)) for row in tinymlds.open(folder).manifest] if sealed else []


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="process groups and SIGKILL are POSIX")
def test_killed_merges_lose_nothing(made, parts, tmp_path, share, draw, figure):
    """SIGKILL to the process group at random moments of the time that a merge takes, then the same command; a new folder
    whenever one was finished. The first merge and the last are not disturbed."""
    environment, wanted, kills, finished = os.environ | {"PYTHONPATH": str(ROOT)}, share(50, 2), 0, 0
    folder, before, seconds = tmp_path / "0", [], 0.0
    while kills < wanted or finished < 2:
        start = time.monotonic()
        command = cli_command("merge", *parts, "--out", folder, "--workers", 1, "--quiet")
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, env=environment, start_new_session=True, **quiet) as process:
            try:
                process.wait(timeout=draw.uniform(0.3, seconds) if finished and kills < wanted else None)
                assert process.returncode == 0, process.stderr.read()
                assert files(folder) == files(made / "whole")
                seconds = time.monotonic() - start
                folder, before, finished = tmp_path / f"{finished + 1}", [], finished + 1
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
                now = networks_after(folder)
                assert set(before) <= set(now)
                before = now
    figure(kills=kills, finished=finished)


# ------------------------------------------------------------------ command line


def test_command(made, parts, forged, tmp_path):
    def run(*arguments):
        return CliRunner().invoke(app, ["merge", *map(str, arguments), "--workers", "1"])

    out = tmp_path / "all"
    first = run(*parts[:6], "--out", out)
    assert first.exit_code == 1
    assert f"{parts[1]}, part 2/8: 3 networks, 3 of them new\n" in first.stdout.replace("2 networks, 2", "3 networks, 3")
    assert "missing: part 7/8, part 8/8\n" in first.stdout
    status = CliRunner().invoke(app, ["status", str(out)]).stdout
    assert "next: tinymlds train --transducers 2 --count 9" in status
    refused = run(*parts[:6], parts[6], forged, "--out", tmp_path / "other")
    assert refused.exit_code == 1
    assert "problem: " in refused.stdout
    assert "hold different networks: transducer_000 2" in refused.stdout
    assert f"{forged}, part 3/8" in refused.stdout
    last = run(parts[6], parts[7], "--out", out, "--retrain", 1, "--seed", 3)
    assert last.exit_code == 0, last.stdout
    digest = tinymlds.open(made / "whole").digest
    assert f"digest {digest}\nnext: tinymlds verify" in last.stdout
    assert "networks to train again were picked with seed 3" in last.stdout
    again = json.loads(run(*parts, "--out", out, "--json").stdout)
    assert (again["ok"], again["digest"], again["networks"], again["problems"]) == (True, digest, 18, [])
    assert [source["added"] for source in again["sources"]] == [0] * PARTS
    assert run(tmp_path / "none", "--out", out).exit_code == 1
    assert run(parts[0], "--out", parts[1]).exit_code == 2
