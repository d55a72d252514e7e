"""The HTML page: a template, the data of all charts as JSON, and Plotly, in one file that loads nothing else.

A content security policy allows only the two scripts of the page, by their hashes, and no connection. Jinja escapes every
text, `_json` escapes whatever could end a script, and `traces` escapes whatever Plotly would read as a tag.
"""

import base64
import hashlib
import json
import math
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from tinymlds import __version__
from tinymlds.dataset import overview
from tinymlds.dataset.commands import command_line
from tinymlds.report import distributions, report
from tinymlds.report.charts import DIVERGING, Figure
from tinymlds.report.looks import LOOKS, Look
from tinymlds.report.options import figure_command, page_command
from tinymlds.report.report import Report
from tinymlds.report.traces import AXIS, LAYOUT, figure
from tinymlds.tasks import catalog
from tinymlds.training import metrics
from tinymlds.training.loop import Status

MOST_ROWS = 500
"""The largest number of rows in a table of tasks."""

_SUMMARIES = ("validation_loss", "accuracy", "long_accuracy", "trigger_efficacy")
SECTIONS = {
    "training": ("Training", ("epochs", "losses", "curves", "single-curves")),
    "learned": ("What networks have learned", ("accuracy", "trigger")),
    "space": ("Weight space", ("map", "trajectories")),
}


def render(found: Report) -> str:
    """Return the page as HTML."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    scripts = [_plain(get_plotlyjs()), _plain(_file("page.js"))]
    figures, command = {drawn.name: drawn for drawn in found.figures()}, page_command(found.name, found.options)
    asked = {name for each in found.experiments for name in each.names}
    data = {name: _shown(drawn) for name, drawn in figures.items()}
    looks = found.looks and {
        "networks": [_look(found, look) for look in found.looks.networks],
        "machines": {task: _shown(machine).get("", []) for task, machine in found.looks.machines.items()},
    }
    return environment.from_string(_file("page.html")).render(
        title=found.title,
        version=__version__,
        policy=_policy(scripts),
        style=Markup(_file("page.css")),
        scripts=[Markup(script) for script in scripts],
        lead=_lead(found),
        headline=_headline(found),
        facts=_facts(found),
        status=_status(found),
        summaries=_summaries(found),
        colours=Markup(", ".join(DIVERGING)),
        grid=figures.get("grid"),
        sections=[(key, title, [figures[n] for n in names if n in figures]) for key, (title, names) in SECTIONS.items()],
        experiments=[(each, [figures[name] for name in each.names if name in figures]) for each in found.experiments],
        commands={name: figure_command(found.name, name, found.options, analysis=name in asked) for name in figures},
        looks=found.looks,
        command=command,
        look_titles=LOOKS,
        data=_json({"layout": LAYOUT, "axis": AXIS, "figures": data, "looks": looks, "command": command}),
    )


def _file(name: str) -> str:
    return resources.files("tinymlds.report").joinpath(name).read_text("utf-8")


def _plain(script: str) -> str:
    """Return a script as the browser hashes it, without text that would end its element."""
    return script.replace("\r\n", "\n").replace("\r", "\n").replace("</script", "<\\/script")


def _policy(scripts: list[str]) -> str:
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    return (
        f"default-src 'none'; script-src {hashes} 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _json(value: Any) -> Markup:
    """Return JSON for a script element, escaped so that it can neither end the element nor begin a comment."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _shown(drawn: Figure) -> dict[str, list[dict[str, Any]]]:
    """Return the charts of a figure for the script of the page, by choice."""
    return {
        choice: [{**figure(chart), "share": chart.share, "title": chart.title} for chart in charts]
        for choice, charts in drawn.charts.items()
    }


def _number(value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return value or "-"
    return f"{value:,.6g}" if abs(value) >= 1e-3 or value == 0 else f"{value:.3g}"


def _percent(share: float) -> str:
    """Return a share in percent, never rounded up to 100 %."""
    return f"{math.floor(share * 10_000) / 100:g} %"


def _lead(found: Report) -> str:
    """Return a sentence on what this is."""
    spec = found.status.spec
    names = [task for task, _ in spec.tasks]
    tasks = ", ".join(names) if len(names) <= 10 else f"{names[0]} to {names[-1]}"
    machines = "the same finite-state machine" if len(names) == 1 else f"one of {len(names):,} finite-state machines"
    networks = f"{spec.networks:,} small neural networks" if spec.networks > 1 else "A small neural network"
    return f"{networks}, trained from random weights to be {machines} whose every answer is known: {tasks}."


def _headline(found: Report) -> list[tuple[str, str, str]]:
    """Return what came out in five numbers: (number, what it is, more)."""
    status, recipe = found.status, found.status.spec.recipe
    complete, total = sum(map(status.complete, status.spec.counts)), status.spec.networks
    share = _percent(complete / total) if total else "-"
    headline = [(f"{complete:,}", "networks complete", f"of {total:,} ({share})")]
    columns = {name: np.concatenate(list(values.values())) for name, values in found.columns.items()}
    columns = {name: values[~np.isnan(values)] for name, values in columns.items()}
    if (epochs := columns.get("epochs", np.empty(0))).size:
        low, middle, high = np.percentile(epochs, [5, 50, 95])
        headline.append((f"{middle:g}", "epochs of training", f"median; 5 to 95 %: {low:.0f} to {high:.0f}"))
    for name, what, more in (
        ("accuracy", "steps right", f"median network, fresh sequences of {recipe.steps} steps"),
        ("long_accuracy", "steps right, longer", f"median network, {metrics.LONG * recipe.steps} steps"),
        ("trigger_efficacy", "triggers fire", "median network with a hidden trigger"),
    ):
        if (values := columns.get(name, np.empty(0))).size:
            headline.append((_percent(float(np.median(values))), what, more))
    if len(headline) < 5:
        headline.append((f"{recipe.architecture.size:,}", "parameters each", recipe.architecture.about().sizes))
    return headline


def _facts(found: Report) -> list[tuple[str, str]]:
    spec, recipe = found.status.spec, found.status.spec.recipe
    facts = [
        ("each", recipe.architecture.about().sizes),
        ("training", f"sequences of {recipe.steps} steps, until the validation loss is below {recipe.threshold:g}"),
        ("seed", str(spec.seed)),
        ("last update", report.date(max(found.status.updated.values(), default=None))),
        ("digest", found.status.digest or "none yet: work is under way"),
    ]
    return facts if spec.part is None else [("part", spec.scope), *facts]


@dataclass(frozen=True)
class Table:
    """A table of tasks, without the columns that say the same of all."""

    name: str
    columns: list[str]
    rows: list[tuple[str, list[str]]]
    """The name of each row, and its cells."""
    same: list[tuple[str, str]]
    """Name and value of the columns left out."""


def _table(name: str, rows: list[dict[str, str]]) -> Table:
    """Make a table of rows whose first key is their name."""
    first, *keys = rows[0] if rows else [""]
    constant = {key for key in keys if len(rows) > 1 and len({row[key] for row in rows}) == 1}
    shown = [key for key in keys if key not in constant]
    same = [(key, rows[0][key]) for key in keys if key in constant and rows[0][key] not in ("-", "0")]
    return Table(name, [first, *shown], [(row[first], [row[key] for key in shown]) for row in rows], same)


def _status(found: Report) -> dict[str, Any]:
    page, status, rows = overview.transducers(found.status), found.status, report.progress(found.status)
    number, waiting = len(rows), "in progress" if status.run and status.run.holder else "to do"
    totals = {key: sum(row[key] for row in rows) for key in ("complete", "other", "in_progress", "total")}
    milestones = [] if page is None else [(m, done, done / (number * m)) for m, done in page.milestones.items()]
    shown = [
        {
            "task": row["task"],
            "original's name": alias if (alias := catalog.alias(row["task"])) != row["task"] else "-",
            "complete": f"{row['complete']:,}",
            "ended otherwise": f"{row['other']:,}",
            waiting: f"{row['in_progress']:,}",
            "of": f"{row['total']:,}",
        }
        for row in rows[:MOST_ROWS]
    ]
    return {
        "table": _table("status-table", shown),
        "tasks": number,
        "totals": totals,
        "waiting": waiting,
        "bands": [] if page is None else list(page.shares.items()),
        "milestones": milestones,
        "quarantined": status.quarantined[:MOST_ROWS],
        "finished": status.digest is not None,
        "command": command_line("status", found.name, *found.options.of_package()),
    }


def _summaries(found: Report) -> Table:
    rows = [] if found.dataset is None else distributions.summaries(found.columns)[:MOST_ROWS]
    return _table(
        "summaries",
        [
            {
                "task": str(row["task"]),
                "epochs": _number(row["epochs"]),
                "5 to 95 %": f"{_number(row['low_epochs'])} to {_number(row['high_epochs'])}",
                **{name.replace("_", " "): _number(row[name]) for name in _SUMMARIES},
            }
            for row in rows
        ],
    )


def _look(found: Report, look: Look) -> dict[str, Any]:
    row = look.network.row
    shown = ("status", "reason", "epochs", "validation_loss", "split", "accuracy", "long_accuracy", "trigger_efficacy")
    commands = {
        name: figure_command(found.name, name, found.options, look.name) if drawn.charts else ""
        for name, drawn in look.figures.items()
    }
    return {
        "task": row["task"],
        "index": row["index"],
        "facts": [[key.replace("_", " "), _number(row[key])] for key in shown if row[key] not in (None, "")],
        "name": f"{row['index']}" + ("" if row["status"] == Status.COMPLETE else f" ({row['status']})"),
        "texts": {name: [drawn.title, drawn.text] for name, drawn in look.figures.items()},
        "bounds": {name: f"{drawn.bound:.3g}" for name, drawn in look.figures.items() if drawn.bound is not None},
        "commands": commands,
        "weights": _shown(look.figures["weights"])[""],
        "hidden": list(_shown(look.figures["hidden"]).values()),
        "answers": list(_shown(look.figures["answers"]).values()),
    }
