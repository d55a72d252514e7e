"""The report's page and its figures: two renderers draw the same, and nothing of a folder gets out."""

import dataclasses
import hashlib
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from forging import TINY, forge_rows, forge_tensors
from packing import package
from pages import array, page_data, train_five
from running import run_cli
from test_millions import run
from typer.testing import CliRunner

import tinymlds
from tinymlds import DatasetError, UsageError, report
from tinymlds.architectures import params
from tinymlds.cli import app
from tinymlds.dataset import store
from tinymlds.dataset.journal import Journal
from tinymlds.dataset.lock import RunLock
from tinymlds.report import report as reporting
from tinymlds.report.charts import Line
from tinymlds.report.options import Options
from tinymlds.spec import Spec

pytest.importorskip("plotly")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from tinymlds.report import page, paper, traces

HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1><b>bold</b> {{ 7*7 }} $x_"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Five machines, three networks each, all complete, with checkpoints."""
    return train_five(tmp_path_factory.mktemp("report") / "made")


@pytest.fixture(scope="module")
def transducers(tmp_path_factory):
    """Twelve transducers, two networks each, none complete."""
    folder = tmp_path_factory.mktemp("report") / "transducers"
    tinymlds.train(transducers=12, count=2, out=folder, workers=1, **TINY)
    return folder


# ------------------------------------------------------------------ the page


def test_a_page(made, tmp_path) -> None:
    text, data = page_data(report.write_page(made, tmp_path / "page.html"))
    dataset = tinymlds.open(made)
    assert dataset.digest in text
    assert "15 of 15 networks are complete" in text
    assert set(data["figures"]) == {"epochs", "losses", "curves", "single-curves", "accuracy", "map", "trajectories"}
    assert len(data["looks"]["networks"]) == 15
    assert set(data["looks"]["machines"]) == set(dataset.tasks)
    assert not re.search(
        r'<(script|link|img|iframe)[^>]+(src|href)="(?!data:,)', text.split('<script type="application')[0]
    )
    assert len(text) < 12e6


def test_every_command_on_the_page_makes_its_figure(made, tmp_path) -> None:
    """As it stands there, from the folder above the dataset."""
    text, data = page_data(report.write_page(made, tmp_path / "page.html", Options(canonical=True)))
    shutil.copytree(made, tmp_path / made.name)
    commands = re.findall(r"<code>(tinymlds report [^<]*--only (?:map|epochs)[^<]*)</code>", text)
    commands.append(data["looks"]["networks"][4]["commands"]["answers"])
    assert [command.split("--only ")[1].split()[0] for command in commands] == ["epochs", "map", "answers"]
    for command in commands:
        done = run_cli(*command.split()[1:], cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert names == [
        "answers-direct-1-sequence-1.png",
        "answers-direct-1-sequence-2.png",
        "answers-direct-1-sequence-3.png",
        "epochs.png",
        "map-epochs.png",
        "map-split.png",
        "map-task.png",
    ]


def test_both_renderers_draw_the_same_numbers(made, transducers) -> None:
    go = pytest.importorskip("plotly.graph_objects")
    from matplotlib.figure import Figure

    for folder in (made, transducers):
        found = reporting.read(folder, Options())
        drawn = found.looks.networks[3].figures.values()
        for figure in [*found.figures(), *drawn]:
            for chart in (chart for charts in figure.charts.values() for chart in charts):
                built = traces.figure(chart)
                go.Figure(built["data"], built["layout"])  # raises if Plotly knows no such property
                lines = [s for s in chart.series if isinstance(s, Line)]
                axes = Figure().add_subplot()
                for line in lines:
                    paper.draw(line, axes)
                shown = [trace for trace in built["data"] if trace.get("mode") == "lines" and trace["line"]["width"]]
                for trace, other in zip(shown, axes.get_lines(), strict=True):
                    for key, values in (("x", other.get_xdata()), ("y", other.get_ydata())):
                        assert np.array_equal(array(trace[key]), np.float32(values), equal_nan=True)


def test_same_folder_same_bytes(made, tmp_path) -> None:
    copy = shutil.copytree(made, tmp_path / made.name)
    first, second = (report.write_page(folder, tmp_path / name) for folder, name in ((made, "a.html"), (copy, "b.html")))
    assert first.read_bytes() == second.read_bytes()
    for form in report.FORMATS:
        chosen = ("curves", "weights")
        paths = [report.write_figures(made, tmp_path / name, form, chosen) for name in ("a", "b")]
        assert [path.name for path in paths[0]] == [path.name for path in paths[1]]
        assert all(a.read_bytes() == b.read_bytes() for a, b in zip(*paths, strict=True))


def test_transducers_as_a_grid(transducers, tmp_path) -> None:
    text, data = page_data(report.write_page(transducers, tmp_path / "page.html"))
    choices = data["figures"]["grid"]
    assert set(choices) == {"share of networks complete", "median of epochs", "median long accuracy"}
    (chart,) = choices["median of epochs"]
    z = array(chart["data"][0]["z"])
    assert z.shape == (3, 4)
    assert (z == 2).all()
    assert chart["data"][0]["text"][2][3] == "transducer_011: median of epochs 2"
    assert "as fewer than two are complete" in text
    assert "12 &times; 2" in text


@pytest.mark.slow
def test_a_dataset_of_one_network_of_another_shape(tmp_path) -> None:
    recipe = TINY | {"hidden": 4, "gru_layers": 1, "linear_maps": 1, "steps": 60}  # a shape that other tests compile too
    folder = tmp_path / "one"
    tinymlds.train("xor_modified", 1, folder, workers=1, **recipe)
    text, data = page_data(report.write_page(folder, tmp_path / "page.html"))
    assert data["figures"]["map"] == {}
    assert "They need two networks or more" in text
    assert "up to step 48 of 60" in text
    assert len(data["looks"]["networks"][0]["weights"]) == 2
    assert "trigger" in data["figures"]
    assert report.write_figures(folder, tmp_path / "figures", only=("weights", "trigger"))


def test_a_dataset_of_a_package(made, transducers, tmp_path) -> None:
    place = package(tmp_path / "package", made, transducers)
    with pytest.raises(UsageError, match="made, transducers"):
        report.write_page(place, tmp_path / "page.html")
    text, data = page_data(report.write_page(place, tmp_path / "page.html", Options(name="made")))
    assert tinymlds.open(made).digest in text
    assert "<h1>package, made</h1>" in text
    command = data["looks"]["networks"][0]["commands"]["weights"]
    assert command == "tinymlds report package --name made --figures figures --only weights --network eightbit:0"
    with pytest.raises(UsageError, match="lies in the dataset"):
        report.write_page(place, place / "page.html", Options(name="made"))


def test_work_under_way(tmp_path) -> None:
    folder = tmp_path / "under-way"
    folder.mkdir()
    with RunLock(folder):
        Journal.create(folder, Spec((("xor", 7), ("parity", 2))), {}, [], {}).close()
    text, data = page_data(report.write_page(folder, tmp_path / "page.html"))
    assert "Work is under way" in text
    assert "0 of 9 networks are complete" in text
    assert "9 are to do" in text, "nobody works on it"
    assert data["figures"] == {}
    assert data["looks"] is None
    with pytest.raises(UsageError, match="nothing that these figures could show"):
        report.write_figures(folder, tmp_path / "figures")


BUILD = """
import sys
from pathlib import Path
import numpy as np
from tinymlds.dataset import sealing
from tinymlds.dataset.journal import Entry, Journal
from tinymlds.training.metrics import COLUMNS
from tinymlds.dataset.lock import RunLock
from tinymlds.spec import Recipe, Spec, recipe_with
from tinymlds.training.loop import Outcome, Status

folder, count = Path(sys.argv[1]), int(sys.argv[2])
recipe = recipe_with(Recipe(), {"train_sequences": 64, "validation_sequences": 32, "steps": 8})
spec = Spec((("direct", count // 2), ("xor", count // 2)), recipe=recipe)
sealing.measure = lambda *_: {**dict.fromkeys(COLUMNS), "accuracy": 1.0, "long_accuracy": 1.0}
generator, size = np.random.default_rng(0), recipe.architecture.size
nothing, losses = np.empty((0, size), np.float32), np.geomspace(0.1, 5e-5, 30).astype(np.float32)
folder.mkdir()
with RunLock(folder):
    journal = Journal.create(folder, spec, {}, [], {})
    run = journal.start_run({})
    for task, start in ((task, start) for task, number in spec.tasks for start in range(0, number, 1000)):
        weights = generator.standard_normal((min(1000, count // 2 - start), size), np.float32)
        journal.add([
            Entry(task, run, Outcome(start + k, Status.COMPLETE, "", vector, losses, losses, nothing, 0.001), 0.0)
            for k, vector in enumerate(weights)
        ])
    sealing.seal(folder, journal)
    journal.close()
"""

REPORT = """
import re, sys, time
from pathlib import Path
from tinymlds import report
start = time.perf_counter()
page = report.write_page(sys.argv[1], sys.argv[2])
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024
print(round(time.perf_counter() - start, 1), peak, page.stat().st_size // 10**6)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads its memory from /proc")
def test_many_networks(tmp_path, share, figure) -> None:
    """`--full`: 50,000 of the default shape, 873 MB of weights, of which a thousand are in memory at a time."""
    count = share(50_000, 2_000)
    run(BUILD, tmp_path / "many", count)
    seconds, megabytes, page_megabytes = map(float, run(REPORT, tmp_path / "many", tmp_path / "page.html").split())
    figure(networks=count, seconds=seconds, megabytes=megabytes, page_megabytes=page_megabytes)
    assert megabytes < 600
    assert page_megabytes < 30
    text, data = page_data(tmp_path / "page.html")
    assert f"Shown are all {count:,} complete networks" in text
    assert "computed from 1,000 of them" in text
    for chart in data["figures"]["map"]["task"]:
        assert sum(array(trace["x"]).size for trace in chart["data"]) == count


# ------------------------------------------------------------------ what a folder may bring


@pytest.fixture(scope="module")
def hostile(made):
    """A folder with markup in its name and in the reason of a network."""
    folder = shutil.copytree(made, made.parent / "<img src=x onerror='window.hacked=1'>")

    def change(rows):
        for row in rows:
            if row["task"] == "eightbit":
                row.update(reason=HOSTILE, status="stalled")

    forge_rows(folder, change)
    return folder


def test_nothing_of_a_folder_becomes_markup(hostile, tmp_path) -> None:
    text, data = page_data(report.write_page(hostile, tmp_path / "page.html"))
    assert ["reason", HOSTILE] in data["looks"]["networks"][0]["facts"]
    ours = re.sub(r"<script>.*?</script>", "", text, flags=re.S)
    assert "<img" not in ours
    assert text.count("<script") == page_data(report.write_page(hostile.parent / "made", tmp_path / "other.html"))[0].count(
        "<script"
    )
    assert traces.escape("<a href=javascript:x>&") == "&lt;a href=javascript:x&gt;&amp;"


def test_weights_and_losses_that_are_no_numbers(made, tmp_path) -> None:
    folder = shutil.copytree(made, tmp_path / "forged")

    def spoil(tensors):
        tensors["head.4.bias"][1] = np.nan
        tensors["gru.weight_hh_l0"][2] = np.inf

    forge_tensors(folder, "networks/xor-00000.safetensors", spoil)
    tensors = safetensors.numpy.load_file(folder / "networks" / "xor-00000.safetensors")
    shape = tinymlds.open(folder).shape
    hashes = [store.array_sha256(vector) for vector in params.from_tensors(shape, tensors, 1)]
    forge_rows(folder, lambda rows: [row.update(weights_sha256=hashes[row["row"]]) for row in rows if row["task"] == "xor"])
    forge_tensors(folder, "losses/xor-00000.safetensors", lambda tensors: tensors["validation"].fill(np.nan))
    forge_tensors(folder, "checkpoints/xor-00000.safetensors", lambda tensors: tensors["head.4.bias"].fill(np.nan))
    for options in (Options(), Options(canonical=True)):
        text, _ = page_data(report.write_page(folder, tmp_path / "page.html", options))
        assert "Left out: 2 with weights that are not finite" in text


# ------------------------------------------------------------------ refusals


def test_refusals(made, tmp_path) -> None:
    with pytest.raises(DatasetError, match="not a folder"):
        report.write_page(tmp_path / "nowhere", tmp_path / "page.html")
    with pytest.raises(UsageError, match="lies in the dataset"):
        report.write_page(made, made / "page.html")
    with pytest.raises(UsageError, match="lies in the dataset"):
        report.write_figures(made, made / "figures")
    (tmp_path / "mine.html").write_text("<!doctype html>\nmine")
    with pytest.raises(UsageError, match="is there and is no report"):
        report.write_page(made, tmp_path / "mine.html")
    with pytest.raises(tinymlds.TinymldsError, match="cannot write"):
        report.write_page(made, tmp_path / "no" / "folder.html")
    with pytest.raises(UsageError, match="there is no figure 'nothing'; there are grid, epochs"):
        report.write_figures(made, tmp_path / "figures", only=("nothing",))
    with pytest.raises(UsageError, match="png, svg"):
        report.write_figures(made, tmp_path / "figures", "pdf")
    damaged = shutil.copytree(made, tmp_path / "damaged")
    (damaged / store.shard_name("losses", "xor", 0)).unlink()
    with pytest.raises(DatasetError, match="losses"):
        report.write_page(damaged, tmp_path / "page.html")


@pytest.mark.parametrize(("library", "module"), [("plotly.offline", "page"), ("jinja2", "page"), ("matplotlib", "paper")])
def test_a_missing_library_is_named(made, tmp_path, monkeypatch, library, module) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"tinymlds.report.{module}")
    monkeypatch.delattr(report, module)
    with pytest.raises(UsageError, match=r"pip install 'tinymlds\[report\]'"):
        report.write_page(made, tmp_path / "page.html") if module == "page" else report.write_figures(made, tmp_path / "f")


def test_the_command(made, tmp_path) -> None:
    done = run_cli("report", made, "--out", tmp_path / "page.html", "--network", "xor:1")
    then = f"next: tinymlds analyze {made} --experiment which-machine --out made-which-machine.json"
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'page.html'}\n{then}\n"), done.stderr
    done = run_cli("report", made, "--figures", tmp_path / "figures", "--only", "losses", "--format", "svg")
    shown = f"{tmp_path / 'figures' / 'losses.svg'}\n{then}\n"
    assert (done.returncode, done.stdout) == (0, shown), done.stderr
    asked = ["report", str(made), "--figures", str(tmp_path / "figures"), "--only", "losses", "--format", "svg", "--json"]
    result = CliRunner().invoke(app, [*asked, "--out", str(tmp_path / "page.html")])
    assert result.exit_code == 0, result.stderr
    written = {place: place.read_bytes() for place in (tmp_path / "figures" / "losses.svg", tmp_path / "page.html")}
    assert json.loads(result.stdout)["files"] == [
        {"name": str(place), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for place, data in written.items()
    ]
    done = run_cli("report", made, "--only", "losses")
    assert done.returncode == 2
    assert "--figures" in done.stderr


def test_options_are_in_the_commands() -> None:
    fields = {field.name for field in dataclasses.fields(Options)}
    assert fields == {"canonical", "points", "networks", "name", "subset", "analyses"}
    assert page.page_command("a", Options(canonical=True, points=9)) == "tinymlds report a --canonical --points 9"
    assert Options(name="ds1", subset=9).of_package() == ["--name", "ds1", "--subset", "9"]
    assert page.page_command("a b", Options(networks=(("xor", 1),))) == "tinymlds report 'a b' --network xor:1"


def test_no_architecture_is_known_by_name() -> None:
    """What is shown of one comes from its contract; another one may be registered from outside (`test_registries.py`)."""
    from tinymlds.architectures import ARCHITECTURES, permutations
    from tinymlds.dataset import display

    files = [*Path(report.__file__).parent.glob("*.*"), Path(permutations.__file__), Path(display.__file__)]
    words = {word for each in ARCHITECTURES.values() for word in (each.name, each.__name__)}
    assert len(files) > 14
    for file in files:
        assert not [word for word in words if word in file.read_text("utf-8", "ignore")], file
