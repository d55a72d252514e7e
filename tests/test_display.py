"""What datasets and networks show in a console, a notebook and a data frame, and the progress of a run in a notebook."""

import sys

import pytest
from forging import TINY, make

import tinymlds
from tinymlds.dataset import manifest
from tinymlds.spec import Spec


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("display") / "made"
    tinymlds.train(dataset="ds1", count=2, out=folder, workers=1, **(TINY | {"threshold": 10.0}))
    return folder


def test_a_dataset_shows_itself(made) -> None:
    dataset = tinymlds.open(made)
    assert repr(dataset) == f"Dataset('{made}': 10 networks, 10 complete, of eightbit, direct, invert, xor, parity)"
    shown = dataset._repr_html_()
    assert "<b>made: 10 networks of 4,364 parameters</b>" in shown
    assert "<tr><td>xor</td><td>2</td><td>2</td><td>1</td></tr>" in shown


def test_a_network_shows_itself(made) -> None:
    network = tinymlds.open(made)["xor", 1]
    loss = network.row["validation_loss"]
    split = network.row["split"]
    wanted = f"complete after 1 epochs, validation loss {loss:.3g}, split {split}, 4,364 parameters"
    assert repr(network) == f"Network(xor 1: {wanted})"
    assert f"<td>complete</td><td>1</td><td>{loss:.4g}</td>" in network._repr_html_()


def test_names_are_escaped(tmp_path) -> None:
    dataset = tinymlds.open(make(tmp_path / "<b>bold"))
    assert "<b>bold" not in dataset._repr_html_()
    assert "&lt;b&gt;bold" in dataset._repr_html_()


def test_a_data_frame(made, monkeypatch) -> None:
    pandas = pytest.importorskip("pandas", reason="needs pandas")
    dataset = tinymlds.open(made)
    frame = dataset.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert len(frame) == 10
    assert list(frame.columns) == list(dataset.manifest[0])
    assert frame[frame.task == "xor"].accuracy.tolist() == [row["accuracy"] for row in dataset.rows("xor")]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(tinymlds.UsageError, match="pip install pandas"):
        dataset.to_pandas()


def test_an_empty_split_warns_where_it_is_asked_for(made) -> None:
    dataset = tinymlds.open(made)
    splits = [row["split"] for row in dataset.rows("xor")]
    assert "test" not in splits
    with pytest.warns(UserWarning, match="no network of xor is in the split test; the first 2[0-9] "):
        points, labels = dataset.labelled("test", ["xor"])
    assert points.shape == (0, 4364)
    assert labels.shape == (0,)
    dataset.labelled(splits[0], ["xor"])  # no warning: those are errors in the tests
    dataset.labelled()


def test_which_splits_are_empty() -> None:
    drawn = manifest.splits(0, range(100))
    first = {split: drawn.index(split) for split in manifest.SPLITS}
    last = max(first, key=first.__getitem__)
    assert manifest.empty_splits(Spec((("xor", first[last]),))) == [last]
    assert manifest.empty_splits(Spec((("xor", first[last] + 1),))) == []
    assert f"the first {first[last] + 1} networks" in manifest.fill_splits(0)


NOTEBOOK = """
import tinymlds
print(tinymlds.train("xor", 2, "made", workers=1, **{recipe!r}).digest[:8])
"""


@pytest.mark.slow
def test_a_notebook_shows_progress_by_itself(tmp_path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    cell = nbformat.v4.new_code_cell(NOTEBOOK.format(recipe=TINY))
    book = nbformat.v4.new_notebook(cells=[cell])
    nbclient.NotebookClient(
        book, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    shown, printed = cell.outputs
    assert "2 of 2 networks, " in shown["data"]["text/html"]
    assert 'max="2" value="2"' in shown["data"]["text/html"]
    assert len(printed["text"].strip()) == 8


def test_outside_of_a_notebook_nothing_is_shown(tmp_path, capfd) -> None:
    make(tmp_path / "made")
    assert capfd.readouterr() == ("", "")
