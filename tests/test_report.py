"""The report: its numbers are those of the manifest, its two renderers draw the same, and nothing of a folder gets out."""

import base64
import dataclasses
import hashlib
import json
import re
import shutil
import sys

import naive
import numpy as np
import pytest
import safetensors.numpy
from forging import TINY, forge_rows, forge_tensors, make
from packing import package
from running import run_cli
from test_millions import run
from typer.testing import CliRunner

import tinymlds
from tinymlds import DatasetError, UsageError, params, report, store
from tinymlds.cli import app
from tinymlds.journal import Journal
from tinymlds.report import contents, curves, diagram, looks, population, weightmap
from tinymlds.report.charts import Line, Points, spread_over
from tinymlds.report.options import Options, parse_network
from tinymlds.runlock import RunLock
from tinymlds.spec import Recipe, Spec

pytest.importorskip("plotly")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from tinymlds.report import page, paper, traces

HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1><b>bold</b> {{ 7*7 }} $x_"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Five machines, three networks each, all complete, with checkpoints."""
    folder = tmp_path_factory.mktemp("report") / "made"
    tinymlds.train(dataset="ds1", count=3, out=folder, workers=1, checkpoints=(0, 1), **(TINY | {"threshold": 10.0}))
    return folder


@pytest.fixture(scope="module")
def transducers(tmp_path_factory):
    """Twelve transducers, two networks each, none complete."""
    folder = tmp_path_factory.mktemp("report") / "transducers"
    tinymlds.train(transducers=12, count=2, out=folder, workers=1, **TINY)
    return folder


def page_data(path):
    """The page as text, and the JSON in it."""
    text = path.read_text("utf-8")
    return text, json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])


def array(spec):
    """A typed array of Plotly's as floats."""
    values = np.frombuffer(base64.b64decode(spec["bdata"]), spec["dtype"])
    return values.reshape([int(size) for size in spec["shape"].split(",")]) if "shape" in spec else values


# ------------------------------------------------------------------ numbers


def test_numbers_are_those_of_the_manifest(made) -> None:
    dataset = tinymlds.open(made)
    found = contents.read(made, Options())
    for summary in population.summaries(found.population):
        rows = dataset.rows(summary["task"], unfinished=True)
        for column in ("epochs", "validation_loss", "accuracy", "long_accuracy"):
            assert summary[column] == np.median([row[column] for row in rows])
        assert summary["trigger_efficacy"] is None
    (chart,) = population.epochs(found.population).charts[""]
    assert {line.name: line.y.sum() for line in chart.series} == dict.fromkeys(dataset.tasks, 3)
    (chart,) = population.losses(found.population).charts[""]
    assert {line.name: line.y.sum() for line in chart.series} == dict.fromkeys(dataset.tasks, 3)
    row = found.rows[0]
    assert (row.task, row.complete, row.other, row.in_progress, row.total, row.parameters) == ("eightbit", 3, 0, 0, 3, 4364)


def test_boxes_are_percentiles() -> None:
    values = np.append(np.arange(101.0), np.nan)
    assert population.spreads([values, np.array([np.nan])])[0].tolist() == [5, 25, 50, 75, 95]
    assert np.isnan(population.spreads([values, np.array([np.nan])])[1]).all()


def test_curves_keep_the_last_loss_of_networks_that_ended(tmp_path) -> None:
    tinymlds.train("xor", 3, tmp_path / "xor", workers=1, **(TINY | {"threshold": 0.05}))
    dataset = tinymlds.open(tmp_path / "xor")
    losses = [validation for _, validation in dataset.losses("xor")]
    assert [len(loss) for loss in losses] == [1, 2, 1]
    (chart,) = curves.curves(dataset).charts[""]
    line = next(s for s in chart.series if isinstance(s, Line))
    assert line.x.tolist() == [1, 2]
    wanted = np.median([[loss[min(epoch, len(loss)) - 1] for loss in losses] for epoch in (1, 2)], axis=1)
    assert np.allclose(line.y, wanted, rtol=1e-6)  # float32 losses
    (chart,) = curves.single_curves(dataset).charts["xor"]
    shown, ends = (next(s.y for s in reversed(chart.series) if isinstance(s, kind)) for kind in (Line, Points))
    assert np.array_equal(shown[~np.isnan(shown)].astype(np.float32), np.concatenate(losses))
    assert ends.astype(np.float32).tolist() == [loss[-1] for loss in losses]


@pytest.mark.parametrize("count", [20, 200])
def test_the_plane_is_that_of_the_largest_differences(count) -> None:
    """With fewer networks than parameters, and with more."""
    generator = np.random.default_rng(0)
    scores = generator.standard_normal((count, 2)) * [9, 4]
    directions = np.linalg.qr(generator.standard_normal((30, 2)))[0].T
    weights = (scores @ directions + 5 + 0.01 * generator.standard_normal((count, 30))).astype(np.float32)
    plane = weightmap.fit(weights)
    _, lengths, rows = np.linalg.svd(weights - weights.mean(axis=0, dtype=np.float64), full_matrices=False)
    assert np.allclose(np.abs(plane.directions.T @ rows[:2].T), np.eye(2), atol=1e-9)
    assert plane.shares == pytest.approx((lengths[:2] ** 2 / (lengths**2).sum()).tolist())
    assert (plane.directions[np.abs(plane.directions).argmax(axis=0), [0, 1]] > 0).all()
    assert sum(plane.shares) > 0.999
    assert weightmap.fit(np.ones((2, 30), np.float32)).place(np.ones((1, 30), np.float32)).tolist() == [[0, 0]]


def test_a_map_beyond_its_bound_says_what_it_shows(made) -> None:
    dataset = tinymlds.open(made)
    whole = weightmap.weight_map(dataset, Options())
    assert len(whole.rows) == 15
    assert whole.text == "Shown are all 15 complete networks."
    some = weightmap.weight_map(dataset, Options(points=4))
    assert [(row["task"], row["index"]) for row in some.rows] == [
        ("eightbit", 0),
        ("direct", 0),
        ("invert", 1),
        ("parity", 2),
    ] or len(some.rows) == 4
    assert some.text.startswith("Shown are 4 of 15 complete networks")
    assert "evenly spread" in weightmap.map_figure(dataset, some, Options(points=4)).text
    assert spread_over(10, 4).tolist() == [0, 2, 5, 7]
    assert spread_over(3, 4).tolist() == [0, 1, 2]


@pytest.mark.parametrize("points", [50, 3])
def test_networks_of_many_shards(tmp_path, monkeypatch, points) -> None:
    """Shards of two networks: rows, points, losses and checkpoints stay together."""
    monkeypatch.setattr(store, "SHARD", 2)
    folder = tmp_path / "shards"
    tinymlds.train(transducers=2, count=5, out=folder, workers=1, checkpoints=(0, 1), **(TINY | {"threshold": 10.0}))
    dataset = tinymlds.open(folder)
    found = weightmap.weight_map(dataset, Options(points=points))
    weights = {(row["task"], row["index"]): dataset[row["task"], row["index"]].weights for row in found.rows}
    assert len(weights) == min(points, 10)
    assert np.allclose(found.xy, found.plane.place(np.array(list(weights.values()))))
    (chart,) = weightmap.trajectories(dataset, found, Options()).charts[""]
    starts = [s for s in chart.series if isinstance(s, Points) and s.labels]
    first = {
        label.split(",")[0]: (x, y)
        for s in starts
        for x, y, label in zip(s.x, s.y, s.labels, strict=True)
        if "epoch 0" in label
    }
    for (task, index), place in zip(weights, found.rows, strict=True):
        wanted = found.plane.place(dataset.weights(task, epoch=0)[[index]])
        assert first[f"{place['task']} {place['index']}"] == pytest.approx(wanted[0])
    (chart,) = curves.single_curves(dataset).charts["transducer_001"]
    shown = next(s.y for s in reversed(chart.series) if isinstance(s, Line))
    losses = np.concatenate([validation for _, validation in dataset.losses("transducer_001")])
    assert np.array_equal(shown[~np.isnan(shown)].astype(np.float32), losses)


def test_canonical_forms_on_the_map(made) -> None:
    from tinymlds.symmetry import canonicalize

    dataset, options = tinymlds.open(made), Options(canonical=True)
    found = weightmap.weight_map(dataset, options)
    weights = canonicalize(dataset.shape, np.concatenate([dataset.weights(task) for task in dataset.tasks]))
    assert np.allclose(found.xy, weightmap.fit(weights).place(weights))
    assert "canonical" in weightmap.map_figure(dataset, found, options).text


def test_trajectories_end_where_the_map_has_the_network(made) -> None:
    dataset = tinymlds.open(made)
    found = weightmap.weight_map(dataset, Options())
    (chart,) = weightmap.trajectories(dataset, found, Options()).charts[""]
    ends = np.concatenate([[s.x, s.y] for s in chart.series if isinstance(s, Points) and s.labels is None], axis=1).T
    assert np.allclose(ends, found.xy)
    labels = [label for s in chart.series if isinstance(s, Points) and s.labels for label in s.labels]
    assert labels[:3] == ["eightbit 0, epoch 0", "eightbit 0, epoch 1", "eightbit 0, end"]
    without = make(made.parent / "without", count=2)
    assert weightmap.trajectories(tinymlds.open(without), found, Options()) is None


# ------------------------------------------------------------------ a look at one network


def test_hidden_states_are_those_of_the_oracle(made) -> None:
    network = tinymlds.open(made)["xor", 1]
    tensors = network.state_dict()
    x = np.random.default_rng(0).integers(0, 2, (2, 7, 9)).astype(np.float32)
    below = x.astype(np.float64)
    for layer, states in enumerate(looks.hidden_states(network.shape, tensors, x)):
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        parameters = naive.Layer(*(tensors[f"gru.{name}_l{layer}"].astype(np.float64) for name in names))
        below = naive.gru_forward(parameters, below).h[:, 1:]
        assert np.allclose(states, below, atol=1e-5)  # 7 steps in float32


def test_answers_are_those_of_inspect(made) -> None:
    from tinymlds.reports import network_report

    dataset = tinymlds.open(made)
    look = looks.look(dataset["xor", 1], looks.questions(dataset, "xor"))
    (chart,) = look.answers[0]
    wave, points = chart.series[0], [s for s in chart.series if isinstance(s, Points)]
    answers = network_report(dataset, "xor", 1).answers
    assert [name for _, name in chart.x.ticks] == [answer.command for answer in answers]
    assert wave.y[:-1].tolist() == [answer.expected[0] for answer in answers]
    shown = {float(x): float(y) for s in points for x, y in zip(s.x, s.y, strict=True)}
    assert [shown[answer.step] for answer in answers] == [answer.values[0] for answer in answers]
    wrong = {x for s in points if s.name == "wrong answer" for x in s.x}
    assert wrong == {answer.step for answer in answers if not answer.right}


def test_weights_are_shown_once_each(made) -> None:
    network = tinymlds.open(made)["xor", 0]
    charts = looks.look(network, looks.questions(tinymlds.open(made), "xor")).weights
    cells = np.concatenate([chart.series[0].z.reshape(-1) for chart in charts])
    assert np.array_equal(np.sort(cells), np.sort(network.weights))


def test_which_networks_can_be_looked_at(made, transducers) -> None:
    chosen, text = looks.choose(tinymlds.open(made))
    assert len(chosen) == 15
    assert text == "All 15 networks are on this page."
    found = looks.looks(tinymlds.open(made), Options(networks=(("SimpleXORMachine", 2),)))
    assert len(found.networks) == 15
    with pytest.raises(UsageError, match="networks 0 to 2 of xor, not 3"):
        looks.looks(tinymlds.open(made), Options(networks=(("xor", 3),)))
    with pytest.raises(UsageError, match="TASK:INDEX"):
        parse_network("xor")


def test_a_bounded_choice_is_spread_and_says_so(made, monkeypatch) -> None:
    monkeypatch.setattr(looks, "MOST_NETWORKS", 5)
    chosen, text = looks.choose(tinymlds.open(made))
    assert [task for task, _ in chosen] == list(tinymlds.open(made).tasks)
    assert text.startswith("5 of the 15 networks are on this page")


def test_figures_of_the_networks_that_are_asked_for(made) -> None:
    found = contents.read(made, Options(networks=(("SimpleXORMachine", 2), ("xor", 1))))
    names = [figure.name for figure in contents.look_figures(found, ("weights", "machine"))]
    assert names == ["weights-xor-1", "machine-xor", "weights-xor-2"]
    names = [figure.name for figure in contents.look_figures(contents.read(made, Options()), ("hidden",))]
    assert names == ["hidden-eightbit-0"]


@pytest.mark.parametrize(("task", "arrows"), [("direct", 4), ("xor", 12), ("transducer_000", 32)])
def test_machines_are_drawn_with_all_their_transitions(task, arrows) -> None:
    drawn = diagram.diagram(task, Recipe())
    (chart,) = drawn.charts
    assert sum(len(s.ends) for s in chart.series if isinstance(s, diagram.Arrows)) == arrows
    states = int(re.search(r"has (\d+) states", drawn.text)[1])
    assert [s.words for s in chart.series if isinstance(s, diagram.Texts) and not s.boxed] == [
        [f"s{k}" for k in range(states)]
    ]


def test_a_large_machine_is_named_and_not_drawn() -> None:
    drawn = diagram.diagram("eightbit", Recipe())
    assert drawn.charts == ()
    assert "256 states" in drawn.text
    assert "data/eightbit.dot" in drawn.text


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
        found = contents.read(folder, Options())
        looked = found.looks
        drawn = [contents.look_figure(looked, looked.networks[3], name) for name in contents.LOOKS]
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
    assert "It needs two networks or more" in text
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
    assert "9 are in progress" in text
    assert data["figures"] == {}
    assert data["looks"] is None
    with pytest.raises(UsageError, match="nothing that these figures could show"):
        report.write_figures(folder, tmp_path / "figures")


BUILD = """
import sys
from pathlib import Path
import numpy as np
from tinymlds import sealing
from tinymlds.journal import Entry, Journal
from tinymlds.measures import COLUMNS
from tinymlds.runlock import RunLock
from tinymlds.spec import Recipe, Spec, recipe_with
from tinymlds.training import Outcome, Status

folder, count = Path(sys.argv[1]), int(sys.argv[2])
recipe = recipe_with(Recipe(), {"train_sequences": 64, "validation_sequences": 32, "steps": 8})
spec = Spec((("direct", count // 2), ("xor", count // 2)), recipe=recipe)
sealing.measure = lambda *_: {**dict.fromkeys(COLUMNS), "accuracy": 1.0, "long_accuracy": 1.0}
generator, size = np.random.default_rng(0), recipe.shape.size
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
    (chart,) = data["figures"]["map"]["task"]
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
    then = f"next: tinymlds report {made} --figures figures --format svg"
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'page.html'}\n{then}\n"), done.stderr
    done = run_cli("report", made, "--figures", tmp_path / "figures", "--only", "losses", "--format", "svg")
    shown = f"{tmp_path / 'figures' / 'losses.svg'}\nnext: tinymlds inspect {made}\n"
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
    assert Options(canonical=True, points=9).of_map() == ["--canonical", "--points", "9"]
    assert Options(name="ds1", subset=9).of_package() == ["--name", "ds1", "--subset", "9"]
    assert page.page_command("a b", Options(networks=(("xor", 1),))) == "tinymlds report 'a b' --network xor:1"
