"""Analyses on the report's page: files are read strictly, figures and tables have the numbers of the file."""

import html
import json
import os
import re
import shlex

import numpy as np
import pytest
from forging import make
from pages import array, page_data
from typer.testing import CliRunner

import tinymlds
from tinymlds import AnalysisError, UsageError, report
from tinymlds.analysis import reading
from tinymlds.analysis.features import CONTROLS
from tinymlds.analysis.reading import read_results
from tinymlds.cli import app
from tinymlds.report import report as reporting
from tinymlds.report import scores
from tinymlds.report.charts import Band, Heat, Line, Points, Texts
from tinymlds.report.options import Options

pytest.importorskip("sklearn", reason="needs scikit-learn")
pytest.importorskip("plotly")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from tinymlds.report import paper, traces


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """xor and parity with their twins, and analyses of them. Nine of each are too few to equalise epochs in one case."""
    place = tmp_path_factory.mktemp("experiments")
    for name, machine, modified in (("xor", "xor", False), ("twin", "xor", True), ("parity", "parity", False)):
        make(place / name, machine, 12, modified=modified, threshold=10.0, matched=True)
    make(place / "parity-twin", "parity", 9, modified=True, threshold=10.0, matched=True)
    before = os.getcwd()  # noqa: PTH109
    os.chdir(place)  # so that commands name folders as they lie there
    try:
        rungs = "majority,knn/raw/plain,linear/raw/*"
        folders = ["xor", "twin", "parity", "parity-twin"]
        tinymlds.analyze(folders, "tampered", seeds=2, rungs=rungs, out="tampered.json")
        tinymlds.analyze(
            ["xor", "parity"], "which-machine", seeds=2, rungs="knn/raw/plain,linear/raw/plain", out="which.json"
        )
    finally:
        os.chdir(before)
    return place


@pytest.fixture(scope="module")
def written(place):
    """The JSON of the tampered analysis."""
    return (place / "tampered.json").read_text()


def forged(tmp_path, written, change):
    """A file with other values: change(analysis) changes it in place."""
    analysis = json.loads(written)
    change(analysis)
    path = tmp_path / "forged.json"
    path.write_text(json.dumps(analysis))
    return path


# ------------------------------------------------------------------ reading


def test_what_was_written_is_read(place, written, tmp_path) -> None:
    assert read_results(place / "tampered.json").to_json() == written
    path = tmp_path / "spelled otherwise.json"
    path.write_text(json.dumps(json.loads(written), indent=2))
    assert read_results(path).to_json() == written
    (tmp_path / "link.json").symlink_to(path)
    assert read_results(tmp_path / "link.json").to_json() == written


def row(**values):
    """Another first row that was climbed on plain weights."""
    return lambda analysis: next(r for r in analysis["rows"] if r["rung"] == "knn/raw/plain").update(values)


def whole(**values):
    return lambda analysis: analysis.update(values)


def first_split(**values):
    return lambda analysis: analysis["splits"][0].update(values)


def first_dataset(**values):
    return lambda analysis: analysis["datasets"][0].update(values)


def many_rungs(analysis):
    letters = "abcdefghij"
    analysis["rows"] = [{**analysis["rows"][0], "rung": f"{a}/{b}/{c}"} for a in "abc" for b in letters for c in letters]


EVIL = "tinymlds analyze xor; rm -r ."


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (whole(kind="networks"), "not of the kind"),
        (whole(format=99), "format is 99"),
        (whole(format=1), "format is 1, and this tinymlds reads 2; make it again"),
        (whole(more=1), "too many, 'more'"),
        (lambda analysis: analysis.pop("interval"), "lacks 'interval'"),
        (whole(experiment="../tampered"), "cannot be '../tampered'"),
        (whole(interval="a\nb"), "not a line of text"),
        (whole(command=EVIL), "not a command of tinymlds analyze"),
        (whole(command="tinymlds analyze $(ls)"), "not a command of tinymlds analyze"),
        (whole(command="tinymlds train --machine xor"), "not a command of tinymlds analyze"),
        (whole(rows=[]), "rows are none"),
        (lambda analysis: analysis["rows"].append(analysis["rows"][0]), "occurs twice"),
        (many_rungs, "more than 200 rungs"),
        (whole(splits=[]), "splits are not a list of 2"),
        (whole(provenance={"seconds": {}}), "seconds are not those"),
        (whole(published={"score": 2}), "published lacks"),
        (first_split(validation=[]), "no division"),
        (first_split(test=[0, 0]), "no division"),
        (first_split(test=[99]), "whole number from 0 to 8"),
        (first_split(seed=1), "no division"),
        (first_dataset(digest="0"), "cannot be '0'"),
        (first_dataset(digest="0" * 64), "other datasets than the whole"),
        (first_dataset(matched=1), "neither true nor false"),
        (first_dataset(recipe="0"), "a recipe cannot be '0'"),
        (first_dataset(recipe="0" * 64), "differs from the first dataset in other things than it says"),
        (first_dataset(seed=7), "differs from the first dataset in other things than it says"),
        (first_dataset(differs=["seed"]), "differs from the first dataset in other things than it says"),
        (first_dataset(differs="seed"), "differs is not a list"),
        (first_dataset(matched=False), "differs from the first dataset in matched"),
        (first_dataset(held_out=True), "begin with one held out"),
        (first_dataset(complete={"xor": -1}), "whole number"),
        (row(command=EVIL), "not a command of tinymlds analyze"),
        (row(case="<img>"), "cannot be '<img>'"),
        (row(status="great"), "neither done nor skipped"),
        (row(status="skipped"), "was skipped, and has results|is not a line of text|reason cannot"),
        (row(metric="luck"), "cannot be 'luck'"),
        (row(metric="spearman"), "classes that do not go"),
        (row(metric="balanced_accuracy"), "different metrics"),
        (row(scores=[0.5]), "not a list of 2"),
        (row(scores=[0.5, 2]), "number from 0 to 1"),
        (row(scores=[0.5, True]), "number from 0 to 1"),
        (row(scores=[0.5, "1"]), "number from 0 to 1"),
        (row(mean=0.999), "mean of its scores"),
        (row(half_width=-1), "number from 0"),
        (row(half_width=1e308), "number from 0 to 10"),
        (row(confusion=[[1, 0], [0, 1]]), "other networks than it tested"),
        (row(confusion=[[1, 0]]), "not a list of 2"),
        (row(classes=["clean", "clean"]), "classes that do not go"),
        (row(networks={"train": [1, 1]}), "lacks"),
        (row(others=[]), "not an object"),
        (row(chosen=[{}]), "not a list of 2"),
        (row(versions={}), "other versions"),
        (row(notes=["a" * 5000]), "not a line of text"),
        (row(mean=None), "not a number"),
    ],
)
def test_strangers_files_are_refused(written, tmp_path, change, words) -> None:
    path = forged(tmp_path, written, change)
    with pytest.raises(AnalysisError, match=words) as error:
        read_results(path)
    assert str(error.value).startswith(f"{path} is no analysis that can be shown: ")
    assert "tinymlds analyze DIR --experiment NAME --out FILE" in str(error.value)


def places(value, above=()):
    """The way to every value inside a JSON value."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*above, key)
        yield from places(inner, (*above, key))


ODD = (None, True, -1, 0, 3, 0.5, 1e308, 2**70, "", "x", "<b>", "a\nb", [], [[]], {}, {"x": []}, [0], ["x", "y"])


def test_any_other_value_is_refused_or_shown(written, tmp_path, draw, share) -> None:
    """Something odd in any one place: an AnalysisError, or results whose figures and table can be made."""
    ways, refused, tries = list(places(json.loads(written))), 0, share(20_000, 400)
    for _ in range(tries):
        *above, last = draw.choice(ways)
        odd = draw.choice(ODD)

        def change(analysis, above=above, last=last, odd=odd):
            for key in above:
                analysis = analysis[key]
            analysis[last] = odd

        try:
            (found,) = scores.named([read_results(forged(tmp_path, written, change))], None)
        except AnalysisError:
            refused += 1
            continue
        assert found.text + found.notes
        assert found.table
        for figure in found.figures():
            for charts in figure.charts.values():
                assert all(traces.figure(chart) for chart in charts)
    assert tries * 0.6 < refused < tries


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "damaged"),
        ("[]", "not of the kind"),
        ('{"kind":NaN}', "NaN is not allowed"),
        ('{"kind":1,"kind":1}', "a key occurs twice"),
        ("[" * 100_000, "damaged"),
        ("\udcff", "damaged"),
        (" " * (reading.LIMIT + 1), "more than 8 MB"),
    ],
)
def test_what_is_no_analysis_at_all(tmp_path, text, words) -> None:
    (tmp_path / "file").write_text(text, errors="surrogateescape")
    with pytest.raises(AnalysisError, match=words):
        read_results(tmp_path / "file")


def test_what_is_no_file(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, words in (
        (tmp_path, "is not a file|Is a directory"),
        (tmp_path / "pipe", "not a file"),
        ("no", "No such file"),
    ):
        with pytest.raises(AnalysisError, match=words):
            read_results(path)


# ------------------------------------------------------------------ figures


def shown(place, *names):
    return reporting.read(place / "xor", Options(analyses=tuple(place / name for name in names))).experiments


def test_figures_have_the_numbers_of_the_file(place, written) -> None:
    rows = {(r["case"], r["rung"]): r for r in json.loads(written)["rows"]}
    (found,) = shown(place, "tampered.json")
    figures = {figure.name: figure for figure in found.figures()}
    assert set(figures) == {"ladder-tampered", "cases-tampered", "confusion-tampered"}
    assert set(figures["ladder-tampered"].charts) == {"xor", "parity", "all"}
    for case, (chart,) in figures["ladder-tampered"].charts.items():
        heads = dict(chart.y.ticks)
        drawn = {}
        for series in (s for s in chart.series if isinstance(s, Points)):
            for x, y, reach, label in zip(series.x, series.y, series.reach, series.labels, strict=True):
                rung = f"{heads[round(y)]}/{series.name}"
                drawn[rung] = x, reach
                assert label.startswith(f"{case}, {rung}: {x:.3f} ± {reach:.3f}, a guess gets 0.500")
        wanted = {
            rung: (r["mean"], r["half_width"]) for (c, rung), r in rows.items() if c == case and r["status"] == "done"
        }
        assert drawn == wanted
        (line,) = (s for s in chart.series if isinstance(s, Line))
        assert (line.name, line.x.tolist()) == ("majority", [0.5, 0.5])
    (chart,) = figures["cases-tampered"].charts[""]
    (heat,) = chart.series
    for y, rung in enumerate(heat.rows):
        for x, case in enumerate(heat.columns):
            mean = rows[case, rung]["mean"]
            assert np.isnan(heat.z[y, x]) if mean is None else heat.z[y, x] == mean


def test_matrices_have_the_numbers_of_the_file(place, written) -> None:
    rows = {(r["case"], r["rung"]): r for r in json.loads(written)["rows"]}
    (found,) = shown(place, "tampered.json")
    (figure,) = found.figures(("confusion-tampered",))
    for case, charts in figure.charts.items():
        assert [chart.title.split("/")[0] for chart in charts].count("linear") == 1
        for chart in charts:
            row = rows[case, chart.title]
            fair = [r for (c, rung), r in rows.items() if c == case and rung.split("/")[0] == chart.title.split("/")[0]]
            fair = [r for r in fair if r["rung"].split("/")[2] not in CONTROLS]
            assert row["mean"] == max(r["mean"] for r in fair)
            counts = np.zeros((2, 2), int)
            for texts in (s for s in chart.series if isinstance(s, Texts)):
                for x, y, word in zip(texts.x, texts.y, texts.words, strict=True):
                    counts[y, x] = int(word)
            assert counts.tolist() == row["confusion"]
            (heat,) = (s for s in chart.series if isinstance(s, Heat))
            np.testing.assert_allclose(heat.z, counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))


def test_matrices_are_of_weights(written, tmp_path) -> None:
    """Not of a control, nor of what networks answer, however good."""

    def change(analysis):
        for r in analysis["rows"]:
            if r["rung"] == "knn/raw/plain":
                r["rung"] = "knn/answers/plain"
        seconds = analysis["provenance"]["seconds"]
        analysis["provenance"]["seconds"] = {key.replace("knn/raw", "knn/answers"): each for key, each in seconds.items()}

    (found,) = scores.named([read_results(forged(tmp_path, written, change))], None)
    (figure,) = found.figures(("confusion-tampered",))
    titles = [chart.title for charts in figure.charts.values() for chart in charts]
    assert len(titles) == 3
    assert all(title.startswith("linear/raw/") for title in titles)


def test_both_renderers_draw_the_same_points_and_bars(place) -> None:
    from matplotlib.figure import Figure

    (found,) = shown(place, "tampered.json")
    for figure in found.figures(("ladder-tampered",)):
        for (chart,) in figure.charts.values():
            for series in (s for s in chart.series if isinstance(s, Points)):
                (trace,) = traces.traces(series)
                axes = Figure().add_subplot()
                paper.draw(series, axes)
                bars, points = axes.collections
                assert np.array_equal(points.get_offsets(), np.stack([series.x, series.y], axis=1))
                for name, wanted in (("x", series.x), ("y", series.y)):
                    assert np.array_equal(array(trace[name]), np.float32(wanted))
                ends = np.array([[segment[0, 0], segment[1, 0]] for segment in bars.get_segments()])
                reach = array(trace["error_x"]["array"])
                np.testing.assert_allclose(ends, np.stack([series.x - reach, series.x + reach], axis=1), atol=1e-6)


def test_a_baseline_with_an_interval_and_one_that_was_not_climbed(written, tmp_path) -> None:
    def change(analysis):
        for r in analysis["rows"]:
            if r["rung"] == "majority/raw/plain":
                r.update(half_width=0.1)

    (found,) = scores.named([read_results(forged(tmp_path, written, change))], None)
    (chart,) = found.figures(("ladder-tampered",))[0].charts["xor"]
    (band,) = (s for s in chart.series if isinstance(s, Band))
    assert band.x.tolist() == [0.4, 0.6]

    def without(analysis):
        analysis["rows"] = [r for r in analysis["rows"] if r["rung"] != "majority/raw/plain"]
        seconds = analysis["provenance"]["seconds"]
        analysis["provenance"]["seconds"] = {key: seconds[key] for key in seconds if "majority" not in key}

    (found,) = scores.named([read_results(forged(tmp_path, written, without))], None)
    (chart,) = found.figures(("ladder-tampered",))[0].charts["xor"]
    assert [s.name for s in chart.series if isinstance(s, Line)] == ["a guess"]


def test_many_classes_and_many_cases_are_bounded(written, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(scores, "SMALL", 1)
    monkeypatch.setattr(scores, "MOST_CASES", 2)
    (found,) = scores.named([read_results(forged(tmp_path, written, lambda _: None))], None)
    (figure,) = found.figures(("confusion-tampered",))
    assert set(figure.charts) == {"xor", "parity"}
    assert all(
        len(charts) == 1 and not any(isinstance(s, Texts) for s in charts[0].series) for charts in figure.charts.values()
    )
    assert "Shown are the first 2 of 3 cases." in found.text
    assert all(len(cells) == 2 for _, cells in found.table)


# ------------------------------------------------------------------ the page


@pytest.fixture(scope="module")
def made(place, tmp_path_factory):
    """A page with two analyses, and the JSON in it."""
    options = Options(analyses=(place / "tampered.json", place / "which.json"))
    return page_data(report.write_page(place / "xor", tmp_path_factory.mktemp("page") / "page.html", options))


def test_the_page_shows_them(place, made, written) -> None:
    text, data = made
    names = {name for name in data["figures"] if name.split("-")[0] in ("ladder", "cases", "confusion")}
    assert names == {
        "ladder-tampered",
        "cases-tampered",
        "confusion-tampered",
        "ladder-which-machine",
        "confusion-which-machine",
    }
    analysis = json.loads(written)
    assert f"<code>{analysis['command']}</code>" in html.unescape(text)
    table = re.search(r'<table id="rungs-tampered">(.*?)</table>', text, re.S)[1]
    cells = re.findall(r'title="([^"]*)">([^<]*)</td>', table)
    by_command = {r["command"]: r for r in analysis["rows"]}
    assert len(cells) == len(by_command)
    assert {"done", "skipped"} == {r["status"] for r in analysis["rows"]}
    for command, cell in cells:
        r = by_command[html.unescape(command)]
        assert cell == ("skipped" if r["mean"] is None else f"{r['mean']:.2f} ± {r['half_width']:.2f}")
    assert "Published: 99.1% accuracy" in text
    assert "is not among those" not in text
    assert "from the dataset folder and analyses" in text


def test_the_commands_on_the_page_make_their_figures(place, made, tmp_path, monkeypatch) -> None:
    text, _ = made
    commands = re.findall(r"<code>(tinymlds report [^<]*--only (?:ladder|cases|confusion)-[^<]*)</code>", text)
    assert len(commands) == 5
    monkeypatch.chdir(place)
    for command in commands:
        words = [str(tmp_path) if word == "figures" else word for word in shlex.split(command)[1:]]
        result = CliRunner().invoke(app, [*words, "--format", "svg"])
        assert result.exit_code == 0, result.stderr
    made_files = sorted(path.name for path in tmp_path.iterdir())
    assert made_files == sorted(
        [f"{kind}-tampered-{case}.svg" for kind in ("ladder", "confusion") for case in ("all", "parity", "xor")]
        + ["cases-tampered.svg", "confusion-which-machine.svg", "ladder-which-machine.svg"]
    )
    assert "balanced accuracy" in (tmp_path / "ladder-which-machine.svg").read_text()


def test_an_analysis_of_other_networks_says_so(place, tmp_path) -> None:
    found = reporting.read(place / "twin", Options(analyses=(place / "which.json",))).experiments
    assert "The dataset of this page, as it is now, is not among those." in found[0].text
    assert not any("not among" in text for text in shown(place, "which.json")[0].text)


def test_two_analyses_of_one_experiment_have_two_names(place) -> None:
    found = shown(place, "tampered.json", "tampered.json")
    assert [each.key for each in found] == ["tampered", "tampered-2"]
    assert [figure.name for figure in found[1].figures()] == [
        "ladder-tampered-2",
        "cases-tampered-2",
        "confusion-tampered-2",
    ]


def test_nothing_of_a_file_becomes_markup(place, written, tmp_path) -> None:
    evil = "</script><img src=x onerror='window.hacked=1'>{{ 7*7 }}"

    def change(analysis):
        analysis["interval"] = evil
        for r in analysis["rows"]:
            if r["status"] == "done":
                r["notes"] = [evil]

    options = Options(analyses=(forged(tmp_path, written, change),))
    text, _ = page_data(report.write_page(place / "xor", tmp_path / "page.html", options))
    assert "{{ 7*7 }}" in text
    assert "<img" not in re.sub(r"<script>.*?</script>", "", text, flags=re.S)


def test_refusals_of_the_command(place, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(place)
    asked = ["report", "xor", "--analysis"]
    for words, code, said in (
        ([*asked, "nowhere.json"], 1, "nowhere.json is no analysis that can be shown: No such file"),
        ([*asked, "which.json", "--figures", str(tmp_path), "--only", "ladder-tampered"], 2, "confusion-which-machine"),
    ):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == code
        assert said in result.stderr
        assert result.stderr.count("\n") == 1
    with pytest.raises(UsageError, match="no figure 'ladder-tampered'"):
        report.write_figures("xor", tmp_path, only=("ladder-tampered",))
