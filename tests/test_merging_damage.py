"""Merging parts that are damaged or forged: what is wrong is named, and the others are merged."""

import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from eight_parts import files, held, merge
from forging import forge
from running import lines_of

import tinymlds
from tinymlds.dataset import store
from tinymlds.dataset.journal import Journal
from tinymlds.errors import DatasetError
from tinymlds.training.loop import Status
from tinymlds.verification import merging
from tinymlds.verification.checks import pick


def test_a_damaged_part_is_named_and_the_others_are_merged(whole_and_parts, parts, tmp_path, draw):
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
    assert result.digest == tinymlds.open(whole_and_parts / "whole").digest
    assert not result.ok
    assert any(str(damaged / name) in problem for problem in result.problems)
    assert [source.folder for source in result.sources if source.problems] == [str(damaged)]
    alone = merge([*parts[:2], damaged, *parts[3:]], tmp_path / "without")
    assert (alone.digest, alone.missing) == (None, ["part 3/8"])


def test_a_forged_twin_is_a_conflict(whole_and_parts, parts, forged, tmp_path, draw):
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
    assert again.digest == tinymlds.open(whole_and_parts / "whole").digest


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


def test_what_is_there_stays_when_a_forged_part_comes(whole_and_parts, parts, forged, tmp_path):
    merge(parts, tmp_path / "all")
    before = held(tmp_path / "all")
    result = merge([forged], tmp_path / "all")
    assert (result.ok, result.digest) == (False, tinymlds.open(whole_and_parts / "whole").digest)
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


def test_what_a_disk_has_damaged_comes_from_a_part_that_has_it(whole_and_parts, parts, tmp_path):
    out = tmp_path / "all"
    merge(parts[:4], out)
    damage(out)
    assert merge(parts[4:], out).missing == ["1 networks of part 1/8"], "nobody has it"
    assert files(merge(parts, out).folder) == files(whole_and_parts / "whole")
    merge(parts[:4], tmp_path / "again")
    damage(tmp_path / "again", 3)
    assert files(merge(parts, tmp_path / "again").folder) == files(whole_and_parts / "whole")


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

    def check_and_change(origin, checks):
        good = check(origin, checks)
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
