"""An analysis that is interrupted goes on from the rows that it has, and takes up none of another analysis."""

import json
import os
import re

import pytest
from forging import make

import tinymlds

pytest.importorskip("sklearn", reason="needs scikit-learn")

pytestmark = pytest.mark.usefixtures("small_forests")

ASKED = {"seeds": 2, "rungs": "majority,knn/raw/plain,knn/raw/moved,linear/raw/plain"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """xor and parity, twelve networks each, all complete."""
    place = tmp_path_factory.mktemp("interrupted")
    for machine in ("xor", "parity"):
        make(place / machine, machine, 12, threshold=10.0, matched=True)
    return place


def without_times(path):
    found = json.loads(path.read_text())
    assert found.pop("provenance")["seconds"]
    return found


def interrupted(data, out, stop_at="linear/raw/plain"):
    """An analysis whose rungs from this one on are not climbed."""

    def stop(_case, rungs, *_):
        if rungs == stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as interruption:
        tinymlds.analyze(data, "which-machine", out=out, progress=stop, **ASKED)
    return getattr(interruption.value, "__notes__", [])


def test_an_interrupted_analysis_goes_on(folders, tmp_path):
    data, whole, out = [folders / "xor", folders / "parity"], tmp_path / "whole.json", tmp_path / "found.json"
    tinymlds.analyze(data, "which-machine", out=whole, **ASKED)
    rows = tmp_path / "found.json.rows"
    assert interrupted(data, out) == [f"finished rungs are in {rows}, and the same command goes on"]
    written = rows.read_bytes()
    assert interrupted(data, tmp_path / "nothing.json", "majority/raw/plain") == []
    assert not (tmp_path / "nothing.json.rows").exists(), "nothing was finished"
    assert len(written.splitlines()) == 3, "a header, majority, and nearest neighbours in two forms"
    with rows.open("ab") as file:
        file.write(b'{"case":"all","rows":{"linear/raw/pl')  # a kill in the middle of a line
    climbed = []
    tinymlds.analyze(data, "which-machine", out=out, progress=lambda *fit: climbed.append(fit), **ASKED)
    assert climbed == [("all", "linear/raw/plain", 2, 3)], "of three fits two were done before"
    assert without_times(out) == without_times(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.json", "whole.json"]


def test_rows_of_another_analysis_are_not_taken_up(folders, tmp_path):
    data, out = [folders / "xor", folders / "parity"], tmp_path / "found.json"
    interrupted(data, out)
    rows = tmp_path / "found.json.rows"
    before = rows.read_bytes()
    with pytest.raises(tinymlds.UsageError, match="has rows of another analysis; remove it, or choose another --out"):
        tinymlds.analyze(data, "which-machine", out=out, **{**ASKED, "seeds": 3})
    assert rows.read_bytes() == before
    header, first, *_ = before.splitlines(keepends=True)
    for damaged, words in (
        (b"mine", "another analysis"),
        (header + b"{}\n", "damaged in line 2"),
        (header + first[:-5] + b"\n", "damaged in line 2"),
        (header + first.replace(b'"mean"', b'"meat"') + first, "damaged in line 2"),
    ):
        rows.write_bytes(damaged)
        with pytest.raises(tinymlds.UsageError, match=words):
            tinymlds.analyze(data, "which-machine", out=out, **ASKED)
        assert rows.read_bytes() == damaged
    rows.write_bytes(header[:20])  # a kill in the middle of the first line
    tinymlds.analyze(data, "which-machine", out=out, **ASKED)
    assert not rows.exists()


def test_two_analyses_of_one_file(folders, tmp_path):
    """The second one names the first, harms nothing and leaves nothing behind."""
    data, out = [folders / "xor", folders / "parity"], tmp_path / "found.json"
    refused = []

    def second(*_fit):
        with pytest.raises(tinymlds.UsageError) as error:
            tinymlds.analyze(data, "which-machine", out=out, **ASKED)
        refused.append(str(error.value))

    tinymlds.analyze(data, "which-machine", out=out, progress=second, **ASKED)
    assert len(refused) == 3
    named = rf"another run works on {re.escape(str(out))} \(process {os.getpid()} on .+\); wait or stop it"
    assert all(re.fullmatch(named, line) for line in refused), refused
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"]
    with pytest.raises(tinymlds.UsageError, match="is there already; choose another file"):
        tinymlds.analyze(data, "which-machine", out=out, **ASKED)
