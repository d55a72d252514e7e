"""The HTML page: a template, the data of all charts as JSON, and Plotly, in one file that loads nothing else.

A content security policy allows only the two scripts of the page, by their hashes, and no connection. Jinja escapes every
text, `_json` escapes whatever could end a script, and `traces` escapes whatever Plotly would read as a tag.
"""

import base64
import hashlib
import json
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from tinymlds import __version__
from tinymlds.dataset import overview
from tinymlds.dataset.commands import command_line
from tinymlds.report import distributions, report
from tinymlds.report.charts import Figure
from tinymlds.report.looks import LOOKS, Look
from tinymlds.report.options import figure_command, page_command
from tinymlds.report.report import Report
from tinymlds.report.traces import AXIS, LAYOUT, figure
from tinymlds.tasks import catalog

MOST_ROWS = 500
"""The largest number of rows in a table of tasks."""

SECTIONS = {
    "training": ("Training", ("epochs", "losses", "curves", "single-curves")),
    "learned": ("What networks have learned", ("accuracy", "trigger")),
    "space": ("Weight space", ("map", "trajectories")),
}


def render(found: Report) -> str:
    """Return the page as HTML."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["number"] = _number
    scripts = [_plain(get_plotlyjs()), _plain(_file("page.js"))]
    figures = {drawn.name: drawn for drawn in found.figures()}
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
        facts=_facts(found),
        status=_status(found),
        summaries=[] if found.dataset is None else distributions.summaries(found.columns)[:MOST_ROWS],
        grid=figures.get("grid"),
        sections=[(key, title, [figures[n] for n in names if n in figures]) for key, (title, names) in SECTIONS.items()],
        experiments=[(each, [figures[name] for name in each.names if name in figures]) for each in found.experiments],
        commands={name: figure_command(found.name, name, found.options, analysis=name in asked) for name in figures},
        looks=found.looks,
        command=page_command(found.name, found.options),
        look_titles=LOOKS,
        data=_json({"layout": LAYOUT, "axis": AXIS, "figures": data, "looks": looks}),
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


def _facts(found: Report) -> list[tuple[str, str]]:
    spec, recipe = found.status.spec, found.status.spec.recipe
    names = [task for task, _ in spec.tasks]
    return [
        ("tasks", ", ".join(names) if len(names) <= 10 else f"{len(names):,} ({names[0]} to {names[-1]})"),
        ("networks", f"{spec.networks:,}" if spec.part is None else f"{spec.networks:,}: {spec.scope}"),
        ("each", f"{recipe.architecture.size:,} parameters: {recipe.architecture.about().sizes}"),
        ("training", f"sequences of {recipe.steps} steps, until the validation loss is below {recipe.threshold:g}"),
        ("seed", str(spec.seed)),
        ("digest", found.status.digest or "none yet: work is under way"),
    ]


def _status(found: Report) -> dict[str, Any]:
    page, status, rows = overview.transducers(found.status), found.status, report.progress(found.status)
    number = len(rows)
    totals = {key: sum(row[key] for row in rows) for key in ("complete", "other", "in_progress", "total")}
    milestones = [] if page is None else [(m, done, done / (number * m)) for m, done in page.milestones.items()]
    return {
        "rows": rows[:MOST_ROWS],
        "tasks": number,
        "totals": totals,
        "updated": report.date(max(status.updated.values(), default=None)),
        "bands": [] if page is None else list(page.shares.items()),
        "milestones": milestones,
        "quarantined": status.quarantined[:MOST_ROWS],
        "finished": status.digest is not None,
        "command": command_line("status", found.name, *found.options.of_package()),
        "aliases": {row["task"]: catalog.alias(row["task"]) for row in rows[:MOST_ROWS]},
    }


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
        "texts": {name: [drawn.title, drawn.text] for name, drawn in look.figures.items()},
        "commands": commands,
        "weights": _shown(look.figures["weights"])[""],
        "hidden": list(_shown(look.figures["hidden"]).values()),
        "answers": list(_shown(look.figures["answers"]).values()),
    }
