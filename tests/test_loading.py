"""Loading for users: splits and epochs, one network as a file, points for PyTorch."""

import re
import shutil
import zipfile

import numpy as np
import pytest
import safetensors.numpy
from forging import TINY, make
from running import ROOT, refused, run_cli

import tinymlds
from tinymlds.architectures import recurrent
from tinymlds.dataset import store
from tinymlds.dataset.tensorfile import TensorFile

TASKS = ("transducer_000", "transducer_001")
EPOCHS = (0, 1, 2)
COUNT = 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two tasks with 30 networks each, in shards of seven; some are complete, and some of those sooner than others."""
    place = tmp_path_factory.mktemp("loading") / "two"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "SHARD", 7)
        asked = {"transducers": 2, "checkpoints": EPOCHS, "workers": 1, **TINY, "threshold": 0.125}
        tinymlds.train(dataset="ds3", count=COUNT, out=place, **asked)
    return place


@pytest.fixture
def dataset(folder, monkeypatch):
    monkeypatch.setattr(store, "SHARD", 7)
    return tinymlds.open(folder)


# ------------------------------------------------------------------ splits and epochs


def test_the_dataset_is_a_fair_sample(dataset):
    for task in TASKS:
        rows = dataset.rows(task, unfinished=True)
        assert {row["split"] for row in rows} == {"train", "validation", "test"}
        assert {row["status"] for row in rows} == {"complete", "epoch_cap"}
        assert {row["epochs"] for row in dataset.rows(task)} == {1, 2}


@pytest.mark.parametrize("unfinished", [False, True])
@pytest.mark.parametrize("epoch", [None, *EPOCHS])
@pytest.mark.parametrize("split", [None, "train", "validation", "test"])
def test_weights_go_with_rows(dataset, split, epoch, unfinished):
    for task in TASKS:
        rows = dataset.rows(task, split, epoch, unfinished=unfinished)
        weights = dataset.weights(task, split, epoch, unfinished=unfinished)
        wanted = [
            row
            for row in dataset.rows(task, unfinished=True)
            if (split in (None, row["split"]))
            and (unfinished or row["status"] == "complete")
            and (epoch is None or row["epochs"] >= epoch)
        ]
        assert rows == wanted
        assert (weights.shape, weights.dtype) == ((len(rows), 4364), np.float32)
        checkpoints = dataset.checkpoints(task)
        for row, vector in zip(rows, weights, strict=True):
            stored = (
                dataset[task, row["index"]].weights if epoch is None else checkpoints[row["index"], EPOCHS.index(epoch)]
            )
            assert np.array_equal(vector, stored)
            if epoch is None:
                assert store.array_sha256(vector) == row["weights_sha256"]


def test_weights_that_were_changed_are_not_given(dataset, tmp_path):
    """One byte of the last shard: whatever would hand out that network refuses, and names it; others are still there."""
    shutil.copytree(dataset.folder, tmp_path / "changed")
    shard = tmp_path / "changed" / "networks" / "transducer_001-00004.safetensors"
    start = TensorFile(shard.parent, shard.name)._data_start
    data = bytearray(shard.read_bytes())
    data[start + 4] ^= 1  # in the first tensor of its first network, number 28
    shard.write_bytes(data)
    changed = tinymlds.open(tmp_path / "changed")
    words = r"transducer_001-00004.safetensors is damaged: the weights of transducer_001 28 .* `tinymlds verify"
    for hand_out in (
        lambda: changed.weights("transducer_001", unfinished=True),
        lambda: changed.labelled(unfinished=True),
        lambda: changed["transducer_001", 28],
        lambda: list(changed),
    ):
        with pytest.raises(tinymlds.DatasetError, match=words):
            hand_out()
    assert np.array_equal(changed.weights("transducer_000"), dataset.weights("transducer_000"))
    assert np.array_equal(changed["transducer_001", 29].weights, dataset["transducer_001", 29].weights)
    assert changed.rows("transducer_001") == dataset.rows("transducer_001")


def test_a_dataset_that_grows_under_an_open_one(tmp_path):
    """What was opened before knows other places in the file; it says so, and reads nothing from them."""
    make(tmp_path / "xor", "xor", 2)
    before = tinymlds.open(tmp_path / "xor")
    assert before["xor", 1].weights.size == 4364
    tinymlds.train("xor", 3, tmp_path / "xor", workers=1)
    for read in (lambda: before["xor", 1], lambda: before.weights("xor", unfinished=True), lambda: list(before)):
        with pytest.raises(tinymlds.DatasetError, match="the dataset has grown since it was opened; open it again"):
            read()
    assert len(tinymlds.open(tmp_path / "xor").weights("xor", unfinished=True)) == 3


def test_what_is_no_split_and_no_epoch(dataset, tmp_path):
    for look in (dataset.rows, dataset.weights):
        for split in ("exam", "Train", "", 0, ["train"]):
            with pytest.raises(tinymlds.UsageError, match="one of train, validation, test"):
                look("transducer_000", split)
        for epoch in (3, -1, "1", True, 0.5):
            with pytest.raises(tinymlds.UsageError, match="the epochs 0, 1, 2, not"):
                look("transducer_000", epoch=epoch)
    with pytest.raises(tinymlds.UsageError, match="one of train"):
        next(dataset.networks("transducer_000", "exam"))
    plain = tinymlds.open(make(tmp_path / "xor"))
    with pytest.raises(tinymlds.UsageError, match="has no checkpoints"):
        plain.weights("xor", epoch=0)


def test_a_split_reads_its_shards_only(dataset):
    """The last shard holds networks 28 and 29."""
    row = dataset.rows("transducer_000", unfinished=True)[29]
    name = dataset.folder / store.shard_name("networks", "transducer_000", 4)
    others = {"train", "validation", "test"} - {r["split"] for r in dataset.rows("transducer_000", unfinished=True)[28:]}
    hidden = name.with_suffix(".away")
    name.rename(hidden)
    try:
        for split in others:
            assert len(dataset.weights("transducer_000", split, unfinished=True)) > 0
        with pytest.raises(tinymlds.DatasetError, match="cannot read"):
            dataset.weights("transducer_000", row["split"], unfinished=True)
    finally:
        hidden.rename(name)
    assert others


def test_networks_come_a_shard_at_a_time(dataset, monkeypatch):
    read = []
    real = TensorFile.read_rows
    monkeypatch.setattr(TensorFile, "read_rows", lambda self, *rows: (read.append(rows), real(self, *rows))[1])
    networks = dataset.networks("transducer_000")
    first = next(networks)
    assert (len(read), first.weights.base) == (1, None), "one shard, and a kept network keeps no more than itself"
    found = [first, *networks]
    assert len(read) == 5
    assert [network.row for network in found] == dataset.rows("transducer_000", unfinished=True)
    assert [store.array_sha256(network.weights) for network in found] == [n.row["weights_sha256"] for n in found]
    assert [n.row for n in dataset.networks("transducer_000", "test")] == dataset.rows(
        "transducer_000", "test", unfinished=True
    )
    assert [n.row for n in dataset.networks("transducer_000", unfinished=False)] == dataset.rows("transducer_000")
    assert [n.row for n in dataset] == list(dataset.manifest)


def test_labelled_points(dataset):
    weights, labels = dataset.labelled()
    assert np.array_equal(weights, np.concatenate([dataset.weights(task) for task in TASKS]))
    assert labels.tolist() == [k for k, task in enumerate(TASKS) for _ in dataset.rows(task)]
    weights, labels = dataset.labelled("test", [TASKS[1], TASKS[0]], 1, unfinished=True)
    parts = [dataset.weights(task, "test", 1, unfinished=True) for task in (TASKS[1], TASKS[0])]
    assert np.array_equal(weights, np.concatenate(parts))
    assert labels.tolist() == [0] * len(parts[0]) + [1] * len(parts[1])
    for tasks in ([], TASKS[0], [TASKS[0], TASKS[0]]):
        with pytest.raises(tinymlds.UsageError, match="tasks must"):
            dataset.labelled(tasks=tasks)
    with pytest.raises(KeyError, match="no task 'xor'"):
        dataset.labelled(tasks=["xor"])


# ------------------------------------------------------------------ one network as a file


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_a_network_as_a_file(dataset, tmp_path, suffix, monkeypatch):
    network, path = dataset[TASKS[1], 5], tmp_path / "new" / f"net{suffix}"
    assert network.save(path) == path
    loaded = dict(np.load(path)) if suffix == ".npz" else safetensors.numpy.load_file(path)
    assert loaded.keys() == network.state_dict().keys()
    assert all(np.array_equal(loaded[name], array) for name, array in network.state_dict().items())
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    network.save(tmp_path / f"again{suffix}")
    assert (tmp_path / f"again{suffix}").read_bytes() == path.read_bytes()
    if suffix == ".safetensors":
        metadata = TensorFile(path.parent, path.name).metadata
        assert (metadata["kind"], metadata["row"]) == ("network", network.row)
        assert recurrent.GruLinear(**metadata["shape"]) == network.shape
    else:
        with zipfile.ZipFile(path) as archive:
            assert {(member.date_time, member.create_system) for member in archive.infolist()} == {
                ((1980, 1, 1, 0, 0, 0), 3)
            }
    with pytest.raises(tinymlds.UsageError, match="there already"):
        dataset[TASKS[1], 6].save(path)
    assert path.read_bytes() == (tmp_path / f"again{suffix}").read_bytes()
    dataset[TASKS[1], 6].save(path, force=True)
    assert path.read_bytes() != (tmp_path / f"again{suffix}").read_bytes()
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_where_a_network_cannot_be_written(dataset, tmp_path):
    network = dataset[TASKS[0], 0]
    for name in ("net", "net.pt", "net.safetensors.gz", ".npz"):
        with pytest.raises(tinymlds.UsageError, match=r"end with \.safetensors or \.npz"):
            network.save(tmp_path / name)
    (tmp_path / "a.npz").mkdir()
    with pytest.raises(tinymlds.UsageError, match="there already"):
        network.save(tmp_path / "a.npz")
    with pytest.raises(tinymlds.TinymldsError, match="cannot write"):
        network.save(tmp_path / "a.npz", force=True)
    (tmp_path / "link.npz").symlink_to(tmp_path / "nowhere")
    with pytest.raises(tinymlds.UsageError, match="there already"):
        network.save(tmp_path / "link.npz")
    for name in ("x" * 300, "no\0"):
        with pytest.raises(tinymlds.TinymldsError, match="cannot write"):
            network.save(tmp_path / f"{name}.npz")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz", "link.npz"]


def test_pytorch_loads_what_is_exported(tmp_path):
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    from safetensors.torch import load_file

    place, out = make(tmp_path / "xor"), tmp_path / "net.safetensors"
    done = run_cli("export", place, "SimpleXORMachine", 1, "--out", out)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{out}\nnext: tinymlds inspect {place} xor 1\n", "")
    network = tinymlds.open(place)["xor", 1]
    module = network.architecture.module()
    module.load_state_dict(load_file(out))
    x = np.random.default_rng(0).integers(0, 2, (4, 16, 9)).astype(np.float32)
    with torch.no_grad():
        outputs = module(torch.tensor(x)).numpy()
    # Float32 rounding over 16 steps and nine layers, as in test_dataset.py.
    np.testing.assert_allclose(network.forward(x), outputs, rtol=0, atol=1e-5)


def test_refusals_of_export(tmp_path):
    place, out = make(tmp_path / "xor"), tmp_path / "net.npz"
    refused(run_cli("export", place, "parity", 0, "--out", out), 2, "no task 'parity'", "xor")
    refused(run_cli("export", place, "xor", 2, "--out", out), 2, "networks 0 to 1")
    refused(run_cli("export", place, "xor", 0, "--out", tmp_path / "net.pt"), 2, ".safetensors or .npz")
    refused(run_cli("export", place, "xor", 0, "--out", out, "--name", "xor"), 2, "not a package")
    refused(run_cli("export", tmp_path / "none", "xor", 0, "--out", out), 1, "not a folder")
    assert not out.exists()
    out.write_bytes(b"mine")
    refused(run_cli("export", place, "xor", 0, "--out", out), 2, "there already", "--force")
    assert out.read_bytes() == b"mine"
    done = run_cli("export", place, "xor", 0, "--out", out, "--force")
    assert (done.returncode, np.load(out)["head.4.bias"].shape) == (0, (8,))


# ------------------------------------------------------------------ PyTorch


def test_points_for_pytorch(dataset):
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    points = tinymlds.torch.WeightDataset(dataset)
    assert points.classes == TASKS
    assert len(points) == sum(len(dataset.rows(task, "train")) for task in TASKS)
    assert len(points) == len(points.rows) == len(points.weights)
    for (weights, label), row in zip(points, points.rows, strict=True):
        assert (type(label), TASKS[label], row["split"], row["status"]) == (int, row["task"], "train", "complete")
        assert (weights.dtype, weights.shape) == (torch.float32, (4364,))
        assert store.array_sha256(weights.numpy()) == row["weights_sha256"]
    batches = list(torch.utils.data.DataLoader(points, batch_size=8))
    assert torch.equal(torch.cat([weights for weights, _ in batches]), points.weights)
    assert torch.equal(torch.cat([labels for _, labels in batches]), points.labels)


def test_points_of_some_tasks_at_an_epoch(dataset):
    pytest.importorskip("torch", reason="needs PyTorch")
    points = tinymlds.torch.WeightDataset(dataset, None, [TASKS[1]], 2)
    assert (points.classes, set(points.labels.tolist())) == (TASKS[1:], {0})
    assert np.array_equal(points.weights.numpy(), dataset.weights(TASKS[1], epoch=2))
    assert points.rows == dataset.rows(TASKS[1], epoch=2) != dataset.rows(TASKS[1])
    with pytest.raises(tinymlds.UsageError, match="one of train"):
        tinymlds.torch.WeightDataset(dataset, "exam")
    with pytest.raises(tinymlds.UsageError, match="the epochs 0, 1, 2"):
        tinymlds.torch.WeightDataset(dataset, epoch=7)
    with pytest.raises(KeyError, match="no task"):
        tinymlds.torch.WeightDataset(dataset, tasks=["xor"])


def test_the_examples_of_the_documentation(tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="needs PyTorch")
    pytest.importorskip("pandas", reason="needs pandas")
    monkeypatch.chdir(tmp_path)
    asked = {**TINY, "threshold": 0.5, "max_epochs": 1}
    tinymlds.train(dataset="ds1", count=30, out="ds1", workers=1, checkpoints=(0, 1), **asked)
    blocks = re.findall(r"```(python|bash)\n(.*?)```", (ROOT / "docs" / "loading.md").read_text(), re.DOTALL)
    names = {}
    for kind, text in blocks:
        if kind == "python":
            exec(compile(text, "docs/loading.md", "exec"), names)
            continue
        for command in text.splitlines():
            program, verb, *arguments = command.split()
            assert program == "tinymlds"
            if verb != "train":
                done = run_cli(verb, *arguments)
                assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "ds1",
        "net.safetensors",
        "xor-17.npz",
        "xor-17.safetensors",
    ]
    assert (tmp_path / "net.safetensors").read_bytes() == (tmp_path / "xor-17.safetensors").read_bytes()
    assert len(blocks) == 7
    assert len(names["points"]) == len(names["points"].rows) > 0
