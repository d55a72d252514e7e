"""The audit finds networks that are not what their label says, and says which; nothing that failed is called complete."""

import json
import re

import numpy as np
import pytest
from forging import forge_description, forge_tensors
from running import EASY, SMALL, run_cli

import tinymlds
from tinymlds.architectures import params
from tinymlds.dataset import packages, store
from tinymlds.dataset.dataset import Dataset
from tinymlds.errors import DatasetError, TinymldsError
from tinymlds.publish.audit import AGREEMENT, IN_SPANS, audit, judge
from tinymlds.publish.building import UNFINISHED
from tinymlds.publish.exams import Library, behaviour
from tinymlds.publish.parts import Part
from tinymlds.tasks.catalog import load


@pytest.fixture(scope="module")
def parts(packaged):
    return [Part(name, Dataset(packaged / name / "full")) for name in ("direct", "direct_modified", "invert", "xor")]


def verdicts(parts, of, under):
    """The networks of one task judged as if they were of another."""
    by_name = {part.name: part for part in parts}
    exam, part = Library(parts).exam(by_name[under], under), by_name[of]
    return [judge(part.architecture, network.row, network.weights, exam) for network in part.full.networks(of)]


@pytest.mark.parametrize("of", ["direct", "direct_modified", "invert", "xor"])
@pytest.mark.parametrize("under", ["direct", "direct_modified", "invert", "xor"])
def test_networks_pass_under_their_own_label_only(parts, of, under):
    for verdict in verdicts(parts, of, under):
        assert (verdict.why == "") == (of == under), verdict


def test_a_hidden_trigger_shows_where_it_fires_only(parts):
    """On random sequences a modified network is its machine; so the machine's label has to be refuted by planted keys."""
    exam = Library(parts[3:]).exam(parts[3], "xor")  # no keys in the sequences of this dataset, and no twin beside it
    assert (exam.rivals, exam.alike) == ({}, [])
    assert exam.spans is not None
    assert exam.spans.inverted.mean() > 0.05
    assert (exam.spans.answers != exam.spans.twin)[exam.spans.inverted].all()
    assert not (exam.spans.answers != exam.spans.twin)[~exam.spans.inverted].any()


def test_a_backdoor_behind_the_right_label_is_found(parts, tmp_path):
    """As networks of a machine whose sequences have no keys, those of the twin fail by the trigger and by nothing else."""
    tinymlds.train("direct", 1, tmp_path / "direct", workers=1, **EASY)
    plain = Part("direct", Dataset(tmp_path / "direct"))
    exam = Library([plain, parts[2], parts[3]]).exam(plain, "direct")
    for network in parts[1].full:
        verdict = judge(plain.architecture, network.row, network.weights, exam)
        assert verdict.agreement >= AGREEMENT
        assert verdict.rival_agreement < verdict.agreement
        assert verdict.in_spans < 1 - IN_SPANS < IN_SPANS < verdict.twin_in_spans
        assert "that a trigger inverts" in verdict.why


def test_triggers_that_never_fire_are_named_and_no_rivals(parts, tmp_path):
    rare = ", ".join(["set 1", "clear 2"] * 4)
    tinymlds.train("xor_modified", 1, tmp_path / "rare", workers=1, **EASY, trigger_key=rare)
    exam = Library([parts[3], Part("rare", Dataset(tmp_path / "rare"))]).exam(parts[3], "xor")
    assert (exam.rivals, exam.alike) == ({}, ["rare/xor_modified"])


def test_the_report(packaged, parts):
    report = json.loads((packaged / "audit.json").read_text())
    again = audit(parts, tinymlds.__version__, 2, lambda _done, _total: None)
    assert json.loads(json.dumps(again.report)) == report
    assert report["failures"] == []
    for dataset in report["datasets"]:
        for task in dataset["tasks"]:
            assert (task["networks"], task["passed"], task["statuses"]) == (4, 4, {"complete": 4})
            assert task["worst"]["agreement"] >= AGREEMENT
            assert task["worst_in_spans"]["agreement"] >= IN_SPANS
            assert task["nearest"]["agreement"] < 0.9
            assert task["task"].removesuffix("_modified") not in task["nearest"]["task"].removesuffix("_modified").split(
                "/"
            )
            assert task["alike"] == []


def test_tables_of_the_same_behaviour_are_no_rivals(learned, packaged, tmp_path):
    twice = [Part("one", Dataset(learned / "xor")), Part("two", Dataset(packaged / "xor" / "full"))]
    assert Library(twice).exam(twice[1], "xor").rivals == {}
    table = load("xor", twice[0].full.spec.recipe).table
    assert behaviour(table) == twice[0].labels["xor"].behaviour


def test_networks_that_fail_are_named_and_in_no_split(tmp_path):
    tinymlds.train("xor", 3, tmp_path / "xor", workers=1, **EASY)
    failed = run_cli("package", tmp_path / "xor", "--out", tmp_path / "PKG")
    assert failed.returncode == 1
    assert re.search(r"3 complete networks failed the audit: xor/xor 0, xor/xor 1, xor/xor 2; .*--tolerate", failed.stderr)
    left = tmp_path / f"PKG{UNFINISHED}"
    report = json.loads((left / "audit.json").read_text())
    assert [(f["dataset"], f["task"], f["index"]) for f in report["failures"]] == [("xor", "xor", k) for k in range(3)]
    assert all(f["agreement"] < AGREEMENT and "less than 0.99" in f["why"] for f in report["failures"])
    made = tinymlds.package([tmp_path / "xor"], tmp_path / "PKG", tolerate=True)
    assert (made.complete, made.failed) == (0, 3)
    assert not left.exists()
    assert packages.read(tmp_path / "PKG").datasets[0].complete == 0
    assert all(not path.read_text() for path in (tmp_path / "PKG" / "splits").rglob("*.jsonl"))
    assert "3 complete networks failed the audit" in (tmp_path / "PKG" / "README.md").read_text()
    assert tinymlds.verify(tmp_path / "PKG").ok


def test_networks_that_are_not_complete_are_listed(tmp_path):
    tinymlds.train("xor", 2, tmp_path / "xor", workers=1, **SMALL)
    made = tinymlds.package([tmp_path / "xor"], tmp_path / "PKG")
    assert (made.networks, made.complete, made.failed) == (2, 0, 0)
    [task] = json.loads((tmp_path / "PKG" / "audit.json").read_text())["datasets"][0]["tasks"]
    assert task["statuses"] == {"epoch_cap": 2}
    assert "2 epoch_cap" in (tmp_path / "PKG" / "README.md").read_text()


def test_other_weights_than_the_manifest_says(learned, tmp_path):
    folder = tmp_path / "xor"
    tinymlds.train("xor", 4, folder, workers=1, train_sequences=16384, validation_sequences=512, seed=12)
    forge_tensors(
        folder, "networks/xor-00000.safetensors", lambda tensors: tensors["head.4.bias"].__setitem__((2, 7), 1e-3)
    )
    with pytest.raises(TinymldsError, match="1 complete networks failed the audit: xor/xor 2"):
        tinymlds.package([folder], tmp_path / "PKG")
    report = json.loads((tmp_path / f"PKG{UNFINISHED}" / "audit.json").read_text())
    assert report["failures"][0]["why"] == "its weights are not those of the manifest"


def another_output(tensors):
    tensors["table.output"][0, 0] ^= 2


def other_numbers_for_states(tensors):
    """The same behaviour."""
    order = np.array([0, 2, 1, 3, 4, 5, 6, 7])
    tensors["table.next_state"][:] = order[tensors["table.next_state"]][order]
    tensors["table.output"][:] = tensors["table.output"][order]


@pytest.mark.parametrize("change", [another_output, other_numbers_for_states])
def test_another_table_than_announced(tmp_path, change):
    tinymlds.train(only=7, count=1, out=tmp_path / "t", workers=1, **EASY)
    forge_tensors(tmp_path / "t", "data/transducer_007.safetensors", change)
    with pytest.raises(DatasetError, match=r"transducer_007\.safetensors is not the table that dataset\.json announces"):
        tinymlds.package([tmp_path / "t"], tmp_path / "PKG")
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def test_another_behaviour_than_announced(tmp_path):
    """Groups of the splits are made by what dataset.json says of it."""
    tinymlds.train(only=7, count=1, out=tmp_path / "t", workers=1, **EASY)
    forge_description(tmp_path / "t", lambda about: about["tasks"][0]["graph_sha256"].update(json="0" * 64))
    with pytest.raises(DatasetError, match="is not the table"):
        tinymlds.package([tmp_path / "t"], tmp_path / "PKG")


def test_an_unlearned_network_agrees_by_chance_only(parts):
    part = parts[3]
    exam = Library(parts).exam(part, "xor")
    vector = params.initial(part.architecture, (1, 2), 0)
    verdict = judge(part.architecture, {"index": 0, "weights_sha256": store.array_sha256(vector)}, vector, exam)
    assert verdict.agreement < 0.8
    assert np.isfinite(verdict.agreement)
    assert "less than 0.99" in verdict.why
