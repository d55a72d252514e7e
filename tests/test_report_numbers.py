"""The numbers of a report are those of the manifest, the weights and the oracle, whatever draws them."""

import dataclasses
import re

import naive
import numpy as np
import pytest
from forging import TINY, make
from pages import train_five

import tinymlds
from tinymlds import UsageError
from tinymlds.analysis.features import statistics
from tinymlds.dataset import store
from tinymlds.report import charts, diagram, distributions, looks, weightmap
from tinymlds.report import report as reporting
from tinymlds.report.charts import Line, Points, spread_over
from tinymlds.report.options import Options, parse_network
from tinymlds.spec import Recipe, Setting

pytest.importorskip("plotly")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Five machines, three networks each, all complete, with checkpoints."""
    return train_five(tmp_path_factory.mktemp("report") / "made")


# ------------------------------------------------------------------ numbers


def test_numbers_are_those_of_the_manifest(made) -> None:
    dataset = tinymlds.open(made)
    found = reporting.read(made, Options())
    for summary in distributions.summaries(found.columns):
        rows = dataset.rows(summary["task"], unfinished=True)
        for column in ("epochs", "validation_loss", "accuracy", "long_accuracy"):
            assert summary[column] == np.median([row[column] for row in rows])
        assert summary["trigger_efficacy"] is None
    for figure in (distributions.epochs(found.columns), distributions.losses(found.columns, dataset.spec.recipe)):
        drawn = figure.charts[""]
        assert {chart.title: chart.series[0].y.sum() for chart in drawn} == dict.fromkeys(dataset.tasks, 3)
        assert all((chart.x, chart.y) == (drawn[0].x, drawn[0].y) for chart in drawn), "so that they can be compared"
    row = reporting.progress(found.status)[0]
    assert row | {"updated": ""} == {
        "task": "eightbit",
        "complete": 3,
        "other": 0,
        "in_progress": 0,
        "total": 3,
        "parameters": 4364,
        "updated": "",
    }


def test_boxes_are_percentiles() -> None:
    values = np.append(np.arange(101.0), np.nan)
    assert distributions.spreads([values, np.array([np.nan])])[0].tolist() == [5, 25, 50, 75, 95]
    assert np.isnan(distributions.spreads([values, np.array([np.nan])])[1]).all()


def test_curves_keep_the_last_loss_of_networks_that_ended(tmp_path) -> None:
    tinymlds.train("xor", 3, tmp_path / "xor", workers=1, **(TINY | {"threshold": 0.05}))
    dataset = tinymlds.open(tmp_path / "xor")
    losses = [validation for _, validation in dataset.losses("xor")]
    assert [len(loss) for loss in losses] == [1, 2, 1]
    (chart,) = distributions.curves(dataset).charts[""]
    line = next(s for s in chart.series if isinstance(s, Line))
    assert line.x.tolist() == [1, 2]
    wanted = np.median([[loss[min(epoch, len(loss)) - 1] for loss in losses] for epoch in (1, 2)], axis=1)
    assert np.allclose(line.y, wanted, rtol=1e-6)  # float32 losses
    (chart,) = distributions.single_curves(dataset).charts["xor"]
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
        ("xor", 2),
    ]
    assert some.text.startswith("Shown are 4 of 15 complete networks")
    assert "evenly spread" in weightmap.map_figure(dataset, some).text
    assert spread_over(10, 4).tolist() == [0, 2, 5, 7]
    assert spread_over(3, 4).tolist() == [0, 1, 2]


def test_a_network_far_away_does_not_make_all_others_a_dot(made) -> None:
    dataset = tinymlds.open(made)
    found = weightmap.weight_map(dataset, Options())
    near = dataclasses.replace(found.weights, xy=np.random.default_rng(1).uniform(size=(15, 2)))
    ordinary = weightmap.map_figure(dataset, dataclasses.replace(found, statistics=near, weights=near))
    assert all(chart.x.range is chart.y.range is None for drawn in ordinary.charts.values() for chart in drawn)
    xy = np.random.default_rng(0).uniform(-3, 3, (1000, 2))
    xy[:2] = [[1e4, 0.0], [1e4, 1e4]]
    rows = [{**found.rows[0], "index": k} for k in range(1000)]
    far = dataclasses.replace(found.weights, xy=xy)
    figure = weightmap.map_figure(dataset, dataclasses.replace(found, rows=rows, statistics=far, weights=far))
    assert "Outside of the frames: 2 and 2;" in figure.text
    for chart in (chart for drawn in figure.charts.values() for chart in drawn):
        assert sum(len(points.x) for points in chart.series) == 1000, "nothing is left out of the numbers"
        for (low, high), inside in zip((chart.x.range, chart.y.range), xy[2:].T, strict=True):
            assert -10 < low < inside.min() < inside.max() < high < 10


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
    assert np.allclose(found.weights.xy, found.weights.plane.place(np.array(list(weights.values()))))
    features = statistics(dataset.architecture, np.array(list(weights.values())))
    assert np.allclose(found.statistics.xy, found.statistics.plane.place(features))
    (chart,) = weightmap.trajectories(dataset, found, Options()).charts[""]
    starts = [s for s in chart.series if isinstance(s, Points) and s.labels]
    first = {
        label.split(",")[0]: (x, y)
        for s in starts
        for x, y, label in zip(s.x, s.y, s.labels, strict=True)
        if "epoch 0" in label
    }
    for (task, index), place in zip(weights, found.rows, strict=True):
        wanted = found.weights.plane.place(dataset.weights(task, epoch=0)[[index]])
        assert first[f"{place['task']} {place['index']}"] == pytest.approx(wanted[0])
    (chart,) = distributions.single_curves(dataset).charts["transducer_001"]
    shown = next(s.y for s in reversed(chart.series) if isinstance(s, Line))
    losses = np.concatenate([validation for _, validation in dataset.losses("transducer_001")])
    assert np.array_equal(shown[~np.isnan(shown)].astype(np.float32), losses)


def test_canonical_forms_on_the_map(made) -> None:
    from tinymlds.architectures.symmetry import canonicalize

    dataset, options = tinymlds.open(made), Options(canonical=True)
    found = weightmap.weight_map(dataset, options)
    weights = canonicalize(dataset.architecture, np.concatenate([dataset.weights(task) for task in dataset.tasks]))
    assert np.allclose(found.weights.xy, weightmap.fit(weights).place(weights))
    assert "canonical" in weightmap.map_figure(dataset, found).charts["task"][1].title
    plain = weightmap.weight_map(dataset, Options())
    assert np.array_equal(found.statistics.xy, plain.statistics.xy), "statistics are those of the weights as they are"


def test_trajectories_end_where_the_map_has_the_network(made) -> None:
    dataset = tinymlds.open(made)
    found = weightmap.weight_map(dataset, Options())
    (chart,) = weightmap.trajectories(dataset, found, Options()).charts[""]
    ends = np.concatenate([[s.x, s.y] for s in chart.series if isinstance(s, Points) and s.labels is None], axis=1).T
    assert np.allclose(ends, found.weights.xy)
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
    for layer, states in enumerate(network.architecture.trace(tensors, x).values()):
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        parameters = naive.Layer(*(tensors[f"gru.{name}_l{layer}"].astype(np.float64) for name in names))
        below = naive.gru_forward(parameters, below).h[:, 1:]
        assert np.allclose(states, below, atol=1e-5)  # 7 steps in float32


def test_answers_are_those_of_inspect(made) -> None:
    from tinymlds.dataset.summary import network_report

    dataset = tinymlds.open(made)
    look = looks.look(dataset["xor", 1], looks.sample_sequences(dataset, "xor"))
    (chart,) = look["answers"].charts["sequence 1"]
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
    charts = looks.look(network, looks.sample_sequences(tinymlds.open(made), "xor"))["weights"].charts[""]
    cells = np.concatenate([chart.series[0].z.reshape(-1) for chart in charts])
    assert np.array_equal(np.sort(cells), np.sort(network.weights))


def test_which_networks_can_be_looked_at(made) -> None:
    chosen, text = looks.choose(tinymlds.open(made))
    assert len(chosen) == 15
    assert text == "All 15 networks are on this page."
    found = looks.looks(tinymlds.open(made), Options(networks=(("SimpleXORMachine", 2),)))
    assert len(found.networks) == 15
    with pytest.raises(UsageError, match="networks 0 to 2 of xor, not 3"):
        looks.looks(tinymlds.open(made), Options(networks=(("xor", 3),)))
    with pytest.raises(UsageError, match="TASK:INDEX"):
        parse_network("xor")


def test_networks_that_failed_are_among_those_shown(tmp_path, monkeypatch) -> None:
    tinymlds.train("xor", 12, tmp_path / "xor", workers=1, **(TINY | {"threshold": 0.05, "max_epochs": 1}))
    dataset = tinymlds.open(tmp_path / "xor")
    failed = [row["index"] for row in dataset.rows("xor", unfinished=True) if row["status"] != "complete"]
    assert 0 < len(failed) < 12
    monkeypatch.setattr(looks, "MOST_NETWORKS", 2)
    shown = [index for _, index in looks.choose(dataset)[0]]
    assert set(failed) <= set(shown)
    assert len(shown) == len(failed) + 2


@pytest.mark.parametrize(
    ("low", "high", "names"),
    [
        (1, 1, ["1"]),
        (1, 42, ["1", "2", "5", "10", "20"]),
        (1.5e-7, 0.3, ["10⁻⁶", "10⁻⁵", "10⁻⁴", "0.001", "0.01", "0.1"]),
        (3e-5, 9e-5, ["5·10⁻⁵"]),
    ],
)
def test_logarithmic_axes_name_few_numbers(low, high, names) -> None:
    axis = charts.log_axis("epoch", low, high)
    assert [name for _, name in axis.ticks] == names
    assert all(low <= place <= high for place, _ in axis.ticks)


def test_epochs_are_whole_numbers() -> None:
    for low, high, wanted in ((0.5, 2.5, [1, 2]), (0.5, 42.5, [10, 20, 30, 40]), (995.5, 1004.5, range(996, 1005, 2))):
        assert [place for place, _ in charts.whole_axis("epochs", low, high).ticks] == list(wanted)


def test_a_bounded_choice_is_spread_and_says_so(made, monkeypatch) -> None:
    monkeypatch.setattr(looks, "MOST_NETWORKS", 5)
    chosen, text = looks.choose(tinymlds.open(made))
    assert [task for task, _ in chosen] == list(tinymlds.open(made).tasks)
    assert text.startswith("5 of the 15 networks are on this page")


def test_figures_of_the_networks_that_are_asked_for(made) -> None:
    found = reporting.read(made, Options(networks=(("SimpleXORMachine", 2), ("xor", 1))))
    names = [figure.name for figure in reporting.look_figures(found, ("weights", "machine"))]
    assert names == ["weights-xor-1", "machine-xor", "weights-xor-2"]
    names = [figure.name for figure in reporting.look_figures(reporting.read(made, Options()), ("hidden",))]
    assert names == ["hidden-eightbit-0"]


@pytest.mark.parametrize(("task", "arrows"), [("direct", 4), ("xor", 12), ("transducer_000", 32)])
def test_machines_are_drawn_with_all_their_transitions(task, arrows) -> None:
    drawn = diagram.diagram(Setting(task, 0, Recipe()))
    (chart,) = drawn.charts[""]
    assert sum(len(s.ends) for s in chart.series if isinstance(s, diagram.Arrows)) == arrows
    states = int(re.search(r"has (\d+) states", drawn.text)[1])
    assert [s.words for s in chart.series if isinstance(s, diagram.Texts) and not s.boxed] == [
        [f"s{k}" for k in range(states)]
    ]


def test_a_large_machine_is_named_and_not_drawn() -> None:
    drawn = diagram.diagram(Setting("eightbit", 0, Recipe()))
    assert drawn.charts == {}
    assert "256 states" in drawn.text
    assert "data/eightbit.dot" in drawn.text
