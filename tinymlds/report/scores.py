"""Figures of an analysis: the scores of the ladder with intervals, all cases side by side, and confusion matrices."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, count
from typing import Any

import numpy as np

from tinymlds.analysis.features import CONTROLS, FORMS
from tinymlds.analysis.results import METRICS, Results, Row
from tinymlds.report.charts import GREY, PALETTE, Axis, Band, Chart, Figure, Heat, Line, Points, Series, Texts

MOST_CASES = 200
"""The largest number of cases of an analysis that are shown."""
SMALL = 8
"""The largest number of classes at which confusion matrices show their numbers and stand side by side."""
BASELINE = "majority/raw/plain"
ASIDE = ("answers", "norm", "norms", "loss", "epochs", "task", *CONTROLS)
"""Features and forms without a confusion matrix: controls, and features that are not weights."""
TITLES = {
    "which-machine": "Which machine?",
    "tampered": "Tampered?",
    "tampered-unseen": "Tampered? Machines never seen before",
    "which-transducer": "Which transducer?",
    "which-optimizer": "Which optimizer made it?",
    "predict-epochs": "How long was it trained?",
}
SCORES = {"balanced_accuracy": "balanced accuracy", "roc_auc": "ROC-AUC", "spearman": "Spearman's rank correlation"}


@dataclass(frozen=True, eq=False)
class Experiment:
    """An analysis on the page."""

    results: Results
    key: str
    """The name of the experiment, numbered if several analyses are of the same one."""
    digest: str | None
    """The digest of the dataset of the page."""

    @property
    def title(self) -> str:
        """The question of the analysis."""
        held = ", tested on networks held out" if any(each["held_out"] for each in self.results.datasets) else ""
        return TITLES.get(self.results.experiment, self.results.experiment) + held

    @property
    def cases(self) -> tuple[str, ...]:
        """The cases that are shown."""
        return self.results.cases[:MOST_CASES]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the figures."""
        return tuple(f"{kind}-{self.key}" for kind in _KINDS)

    def figures(self, only: tuple[str, ...] = ()) -> list[Figure]:
        """Return the figures, or those named in `only`."""
        wanted = (kind for kind, name in zip(_KINDS, self.names, strict=True) if not only or name in only)
        return [figure for kind in wanted if (figure := _KINDS[kind](self)) is not None]

    @property
    def text(self) -> list[str]:
        """Sentences on the datasets and on the meaning of the figures."""
        of = ", ".join(map(_described, self.results.datasets))
        texts = [f"Asked of {of}, with {len(self.results.splits)} seeds. Intervals: {self.results.interval}."]
        if self.digest not in (each["digest"] for each in self.results.datasets):
            texts.append("The dataset of this page, as it is now, is not among those.")
        if pairs := self.results.pairs:
            texts.append(f"{pairs[0].upper()}{pairs[1:]}.")
        if found := self.results.published:
            texts.append(f"Published: {found['score']:.1%} {found['metric']}, {found['what']} ({found['source']}).")
        if (total := len(self.results.cases)) > MOST_CASES:
            texts.append(f"Shown are the first {MOST_CASES} of {total:,} cases.")
        return texts

    @cached_property
    def table(self) -> list[tuple[str, list[tuple[str, bool, str]]]]:
        """A row for each rung, with a cell for each case shown: the text, whether it is at chance, and the command."""
        rows = {(row.case, row.rung): row for row in self.results.rows}
        rungs = dict.fromkeys(row.rung for row in self.results.rows)
        return [(rung, [_cell(rows.get((case, rung))) for case in self.cases]) for rung in rungs]

    @cached_property
    def notes(self) -> list[str]:
        """The notes of the rungs; a note that several cases share is listed once."""
        found: dict[tuple[str, str], list[str]] = {}
        for case in self.results.cases:
            for rung_and_note in self.results.notes_of(case):
                found.setdefault(rung_and_note, []).append(case)
        return [f"{rung} ({', '.join(cases)}): {note}" for (rung, note), cases in found.items()]


def named(results: Sequence[Results], digest: str | None) -> list[Experiment]:
    """Give each analysis a key of its own, for a page on the dataset with this digest."""
    keys: list[str] = []
    for each in results:
        names = chain([each.experiment], (f"{each.experiment}-{number}" for number in count(2)))
        keys.append(next(name for name in names if name not in keys))
    return [Experiment(each, key, digest) for each, key in zip(results, keys, strict=True)]


def _described(dataset: dict[str, Any]) -> str:
    kind = "".join(f", {word}" for key, word in (("matched", "matched"), ("held_out", "held out")) if dataset[key])
    kind += f", differs from the first in {', '.join(dataset['differs'])}" if dataset["differs"] else ""
    complete = sum(dataset["complete"].values())
    return f"{dataset['folder']} ({complete:,} complete networks{kind}; digest {dataset['digest'][:16]}…)"


def _cell(row: Row | None) -> tuple[str, bool, str]:
    if row is None:
        return "", False, ""
    if row.mean is None or row.half_width is None:
        return "skipped", False, row.command
    return f"{row.mean:.2f} ± {row.half_width:.2f}", row.at_chance, row.command


# ------------------------------------------------------------------ the ladder


def ladder(experiment: Experiment) -> Figure | None:
    """Return the mean and interval of each rung beside those of the majority, by case; None if no rung has a score."""
    found = {case: _done(experiment, case) for case in experiment.cases}
    charts = {_choice(experiment, case): (_ladder(case, rows),) for case, rows in found.items() if rows}
    text = (
        "Mean over the seeds, with its interval; the colour is the form in which a model saw the networks, and some forms "
        "are controls. The grey line is what the majority class, or a guess, gets. An interval that holds it does not tell "
        "the rung from a guess; it is corrected for the networks that seeds share."
    )
    return Figure(f"ladder-{experiment.key}", "The ladder of models", text, {**charts}, "Case") if charts else None


def _choice(experiment: Experiment, case: str) -> str:
    return case if len(experiment.cases) > 1 else ""


def _ladder(case: str, rows: list[Row]) -> Chart:
    heads = list(dict.fromkeys(_split(row)[0] for row in rows))
    metric = rows[0].metric
    low = min(rows[0].chance, *(_mean(row) - _reach(row) for row in rows))
    across = Axis(SCORES[metric], range=(max(low, METRICS[metric][0]) - 0.03, 1.03))
    down = Axis(range=(len(heads) - 0.5, -0.5), ticks=[(float(k), head) for k, head in enumerate(heads)])
    series = [*_baseline(rows, len(heads)), *_forms(rows, heads)]
    return Chart(f"{case}: {SCORES[metric]}", series, across, down, height=120 + 34 * len(heads))


def _done(experiment: Experiment, case: str) -> list[Row]:
    return [row for row in experiment.results.of_case(case) if row.mean is not None]


def _split(row: Row) -> tuple[str, str]:
    head, _, form = row.rung.rpartition("/")
    return head, form


def _mean(row: Row) -> float:
    return 0.0 if row.mean is None else row.mean


def _reach(row: Row) -> float:
    return 0.0 if row.half_width is None else row.half_width


def _baseline(rows: list[Row], heads: int) -> list[Series]:
    """Draw the score of the majority as a vertical line, or that of a guess if the majority has no score."""
    majority = next((row for row in rows if row.rung == BASELINE), None)
    middle, reach = (rows[0].chance, 0.0) if majority is None else (_mean(majority), _reach(majority))
    low, high = -0.5, heads - 0.5
    line = Line(np.full(2, middle), np.array([low, high]), "a guess" if majority is None else "majority", GREY, 1.5)
    band = Band(np.array([middle - reach, middle + reach]), np.full(2, low), np.full(2, high), "", GREY)
    return [band, line] if reach else [line]


def _forms(rows: list[Row], heads: list[str]) -> list[Series]:
    """Draw the rungs in one colour for each form; forms are stacked within the line of a model and its features."""
    found = {_split(row)[1] for row in rows}
    forms = [*(form for form in FORMS if form in found), *sorted(found.difference(FORMS))]
    series: list[Series] = []
    for number, form in enumerate(forms):
        own = [row for row in rows if _split(row)[1] == form]
        beside = 0.7 * ((number + 0.5) / len(forms) - 0.5)
        y = np.array([heads.index(_split(row)[0]) + beside for row in own])
        x, reach = (np.array([value(row) for row in own]) for value in (_mean, _reach))
        colour = PALETTE[number % len(PALETTE)]
        series.append(Points(x, y, form, colour, labels=[_label(row) for row in own], size=7.0, reach=reach))
    return series


def _label(row: Row) -> str:
    tested = "" if row.networks is None else f", {sum(row.networks['test']):,} networks tested"
    return f"{row.case}, {row.rung}: {row.mean:.3f} ± {row.half_width:.3f}, a guess gets {row.chance:.3f}{tested}"


# ------------------------------------------------------------------ all cases


def cases(experiment: Experiment) -> Figure | None:
    """Return a heat map of all rungs of all cases; None if there are fewer than two cases."""
    shown = [case for case in experiment.cases if _done(experiment, case)]
    if len(shown) < 2:
        return None
    rows = {(row.case, row.rung): row for case in shown for row in _done(experiment, case)}
    rungs = list(dict.fromkeys(rung for _, rung in rows))
    z, labels = np.full((len(rungs), len(shown)), np.nan), [[""] * len(shown) for _ in rungs]
    for (case, rung), row in rows.items():
        y, x = rungs.index(rung), shown.index(case)
        z[y, x], labels[y][x] = _mean(row), _label(row)
    first = next(iter(rows.values()))
    score = SCORES[first.metric]
    heat = Heat(z, shown, rungs, min(first.chance, float(np.nanmin(z))), 1.0, False, score, labels)
    across = Axis("case", ticks=[(float(k), case) for k, case in enumerate(shown) if k % -(-len(shown) // 12) == 0])
    down = Axis(ticks=[(float(k), rung) for k, rung in enumerate(rungs)])
    chart = Chart(f"Mean {score}", [heat], across, down, height=130 + 19 * len(rungs))
    text = (
        "The mean of every rung of every case. Empty: it was skipped, and the table says so. Point at a square, or tap it."
    )
    return Figure(f"cases-{experiment.key}", "All cases", text, {"": (chart,)})


# ------------------------------------------------------------------ confusion matrices


def confusion(experiment: Experiment) -> Figure | None:
    """Return the confusion matrix of the best rung of each model, by case; None if numbers were predicted."""
    found = {case: _best(_done(experiment, case)) for case in experiment.cases}
    charts = {_choice(experiment, case): tuple(map(_matrix, rows)) for case, rows in found.items() if rows}
    if not charts:
        return None
    text = (
        "Networks tested, all seeds together: the row is what a network is, the column what it was taken for, the colour "
        "the share of its row. Of each model the features and form with the best mean, controls and answers aside; of "
        "many classes, of the best model alone."
    )
    return Figure(f"confusion-{experiment.key}", "What was taken for what", text, charts, "Case")


def _best(rows: list[Row]) -> list[Row]:
    """Return the rung with the best mean of each model, best model first, without `ASIDE`; only one if classes are many."""
    best: dict[str, Row] = {}
    for row in rows:
        model, features, form = row.rung.split("/")
        aside = row.rung == BASELINE or features in ASIDE or form in ASIDE
        if row.confusion is not None and not aside and (model not in best or _mean(row) > _mean(best[model])):
            best[model] = row
    found = sorted(best.values(), key=_mean, reverse=True)
    return found[:1] if found and len(found[0].classes) > SMALL else found


def _matrix(row: Row) -> Chart:
    counts = np.array(row.confusion, float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    classes, few = list(row.classes), len(row.classes) <= SMALL
    columns, scale = [f"taken for {name}" for name in classes], "" if few else "share of the row"
    every = max(1, len(classes) // 12)
    ticks = [(float(k), name.removeprefix("transducer_")) for k, name in enumerate(classes) if k % every == 0]
    series: list[Series] = [Heat(shares, columns, classes, 0.0, 1.0, False, scale)]
    for colour, where in (("#FFFFFF", shares < 0.5), ("#1F2328", shares >= 0.5)) if few else ():
        y, x = np.nonzero(where)
        series.append(Texts(x, y, [f"{counts[k, j]:.0f}" for k, j in zip(y, x, strict=True)], colour=colour))
    height, share = (300, 0.25) if few else (620, 0.6)
    across, down = Axis("taken for", ticks=ticks), Axis("" if few else "is", ticks=ticks)
    return Chart(row.rung, series, across, down, height, share=share)


_KINDS: dict[str, Callable[[Experiment], Figure | None]] = {"ladder": ladder, "cases": cases, "confusion": confusion}
