"""Parts that were made apart are merged: in any order, grouping and number the bytes of one run; others are refused."""

import json
import random
import shutil
import tempfile
from pathlib import Path

import pytest
from eight_parts import COUNT, PARTS, files, held, make, merge
from forging import TINY, forge_description, forge_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from running import lines_of
from typer.testing import CliRunner

import tinymlds
from tinymlds.cli import app, console
from tinymlds.dataset import sealing, store
from tinymlds.dataset.journal import Journal
from tinymlds.dataset.lock import RunLock
from tinymlds.errors import DatasetError, UsageError

# ------------------------------------------------------------------ the same as one run


def test_eight_parts_are_one_dataset(whole_and_parts, parts, tmp_path, draw):
    folders = [*parts, *draw.choices(parts, k=3)]
    draw.shuffle(folders)
    seen = []
    result = merge(folders, tmp_path / "all", progress=lambda *state: seen.append(state))
    assert result.ok
    assert (result.digest, result.networks, result.total) == (tinymlds.open(whole_and_parts / "whole").digest, 18, 18)
    assert files(tmp_path / "all") == files(whole_and_parts / "whole")
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


def test_figures_are_measured_once(whole_and_parts, parts, forged, tmp_path, monkeypatch):
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
        assert files(tmp_path / name) == files(whole_and_parts / "whole")


def test_the_provenance_says_where_networks_come_from(whole_and_parts, parts, tmp_path):
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


def test_merging_is_commutative(whole_and_parts, law):
    def check(place, numbers, seed):
        folders = [whole_and_parts / f"p{number}" for number in numbers]
        merge(folders, place / "a")
        merge(random.Random(seed).sample(folders, len(folders)), place / "b")
        assert held(place / "a") == held(place / "b")

    law(check, st.lists(st.integers(1, PARTS), min_size=2, max_size=12), st.integers())


def test_merging_is_associative(whole_and_parts, law):
    def check(place, *groups):
        a, b, c = ([whole_and_parts / f"p{number}" for number in numbers] for numbers in groups)
        merge([*a, *b], place / "ab")
        merge([place / "ab", *c], place / "(ab)c")
        merge([*b, *c], place / "bc")
        merge([*a, place / "bc"], place / "a(bc)")
        assert held(place / "(ab)c") == held(place / "a(bc)")

    law(check, some, some, st.one_of(some, st.just(list(range(1, PARTS + 1)))))


def test_merging_is_idempotent(whole_and_parts, law):
    def check(place, numbers, again):
        folders = [whole_and_parts / f"p{number}" for number in numbers]
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


def test_missing_parts_are_named_and_come_later(whole_and_parts, parts, tmp_path, capsys):
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
    assert files(out) == files(whole_and_parts / "whole")


def test_train_completes_what_is_missing(whole_and_parts, parts, tmp_path):
    merge(parts[1:], tmp_path / "all")
    missing = len(tinymlds.open(parts[0]))
    assert make(tmp_path / "all") == tmp_path / "all"
    lines = lines_of(tmp_path / "all" / store.PROVENANCE)
    own = {line["run"] for line in lines if "index" not in line and "merged" not in line}
    assert len([line for line in lines if "index" in line and line["run"] in own]) == missing
    assert files(tmp_path / "all") == files(whole_and_parts / "whole")


def test_without_parts_indices_are_named(whole_and_parts, tmp_path):
    """A whole dataset of fewer networks, and one that was interrupted, merge too; nobody knows of parts."""
    make(tmp_path / "few", count=3)
    spec = tinymlds.open(whole_and_parts / "whole").spec
    (tmp_path / "started").mkdir()
    Journal.create(tmp_path / "started", spec, {}, [], {}).close()
    result = merge([tmp_path / "few", tmp_path / "started"], tmp_path / "all")
    assert result.missing == ["transducer_000 3-8", "transducer_001 3-8"]
    assert merge([whole_and_parts / "whole"], tmp_path / "all").ok


def test_counts_may_differ(whole_and_parts, parts, tmp_path):
    """A part with a larger count than the others: the dataset has the larger one, and the others are short of it."""
    larger = make(tmp_path / "larger", (1, PARTS), 20)
    result = merge([larger, *parts], tmp_path / "all")
    assert (result.total, result.networks) == (40, 18 + len(tinymlds.open(larger)) - len(tinymlds.open(parts[0])))
    assert len(result.missing) == PARTS - 1
    assert result.missing[0].endswith("networks of part 2/8")
    make(tmp_path / "all", count=20)
    make(tmp_path / "once", count=20)
    assert files(tmp_path / "all") == files(tmp_path / "once")


def test_a_merged_dataset_grows_like_any_other(whole_and_parts, parts, tmp_path):
    merge(parts, tmp_path / "all")
    make(tmp_path / "all", count=12)
    make(tmp_path / "once", count=12)
    assert files(tmp_path / "all") == files(tmp_path / "once")


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


def test_folders_that_cannot_be_merged(whole_and_parts, parts, tmp_path):
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
        ([unfinished], "all", UsageError, "is not finished; `tinymlds train .*--part 2/8 .*` goes on with it"),
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


def test_a_dataset_that_grows_is_merged_into(whole_and_parts, parts, tmp_path, monkeypatch):
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


# ------------------------------------------------------------------ command line


def test_command(whole_and_parts, parts, forged, tmp_path):
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
    digest = tinymlds.open(whole_and_parts / "whole").digest
    assert f"digest {digest}\nnext: tinymlds verify" in last.stdout
    assert "networks to train again were picked with seed 3" in last.stdout
    again = json.loads(run(*parts, "--out", out, "--json").stdout)
    assert (again["ok"], again["digest"], again["networks"], again["problems"]) == (True, digest, 18, [])
    assert [source["added"] for source in again["sources"]] == [0] * PARTS
    assert run(tmp_path / "none", "--out", out).exit_code == 1
    assert run(parts[0], "--out", parts[1]).exit_code == 2
