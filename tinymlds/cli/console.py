"""Output for people: reports on stdout, and the command that makes sense next. It prints what others computed."""

import shlex
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from tinymlds.analysis.results import Results, Row
from tinymlds.cli import completion
from tinymlds.cli.common import quiet
from tinymlds.cli.progress import duration
from tinymlds.dataset import overview, packages
from tinymlds.dataset.commands import command_line, going_on
from tinymlds.dataset.dataset import Dataset
from tinymlds.dataset.manifest import fill_splits
from tinymlds.dataset.overview import FolderStatus
from tinymlds.dataset.summary import FolderReport, NetworkReport, TaskReport
from tinymlds.errors import one_line
from tinymlds.publish import Packaged
from tinymlds.publish.contents import PARQUET
from tinymlds.runs.dry_run import Forecast
from tinymlds.tasks import catalog
from tinymlds.verification.checks import Verification
from tinymlds.verification.merging.results import Merged


def print_next(*words: object, say: str = "") -> None:
    """Name the command that makes sense next, or `say` what does; with --quiet, nothing."""
    if not quiet():
        print(f"next: {say or command_line(*words)}")


def _in_package(folder: Path) -> bool:
    """Whether a dataset folder is part of a package: there is nothing to publish."""
    return packages.is_package(folder.resolve().parent.parent)


def print_next_to_report(dataset: Dataset, analyses: tuple[Path, ...]) -> None:
    """Name the command after a report on a sealed dataset: ask what its weights reveal, or publish it."""
    folder, name = dataset.folder, dataset.folder.resolve().name
    if dataset.spec.part is not None:
        print_next(say="tinymlds merge all parts, which are then analyzed and published together")
    elif not analyses and (experiment := _experiment(dataset)):
        print_next("analyze", folder, "--experiment", experiment, "--out", f"{name}-{experiment}.json")
    elif not _in_package(folder):
        print_next("package", folder, "--out", f"{name}-package")


def print_next_to_unfinished(status: FolderStatus) -> None:
    """Name the command that waits for the run on a folder, or that goes on where nobody is at work."""
    if status.at_work:
        print_next("status", status.folder, "--watch")
    elif words := going_on(status.spec, status.folder):
        print_next(*words)


def _experiment(dataset: Dataset) -> str | None:
    """The name of an experiment that a dataset has networks enough for."""
    if min(dataset.counts.values()) < 3:
        return None
    for name, kind in (("which-machine", completion.MACHINES.__contains__), ("which-transducer", catalog.is_transducer)):
        if sum(map(kind, dataset.tasks)) > 1:
            return name
    enough = min(dataset.counts.values()) >= 30 and len(set(dataset.manifest.columns["epochs"].tolist())) > 2
    return "predict-epochs" if enough else None


def print_next_to_verify(result: Verification) -> None:
    """Name the command after a check: look for forgeries, use what is right, or replace what is not."""
    if result.package and not result.ok:
        print_next(say="fetch the package again")
    elif result.package:
        print_next("verify", Path(result.folder) / next(iter(result.digests)) / "full", "--retrain", 59)
    elif not result.ok:
        print_next(say="fetch the folder again, or make it again with another --out; equal digests mean equal networks")
    elif result.networks and not result.retrained:
        print_next("verify", result.folder, "--retrain", 59)
    elif result.networks and not _in_package(Path(result.folder)):
        print_next("inspect", result.folder)


def print_folder(report: FolderReport) -> None:
    """Print the contents of a dataset folder; epochs and validation losses are those of complete networks."""
    part = "" if report.part is None else f" ({report.part} of a dataset)"
    print(f"{report.folder}: {report.networks} networks{part}, seed {report.seed}, {decimal(report.bytes)}")
    rows = []
    for task in report.tasks:
        other = ", ".join(f"{number} {name}" for name, number in task.statuses.items() if name != "complete") or "-"
        complete = task.statuses.get("complete", 0)
        share = complete / max(1, task.networks)
        epochs = "-" if task.epochs is None else f"{task.epochs.median:g} ({task.epochs.low:g}-{task.epochs.high:g})"
        loss = "-" if task.median_loss is None else f"{task.median_loss:.2e}"
        rows.append((task.task, task.networks, f"{complete} ({share:.1%})", other, epochs, loss))
    _print_table(("task", "networks", "complete", "other", "median epochs (5%-95%)", "median loss"), rows)
    print(f"digest {report.digest}")


def print_forecast(expected: Forecast) -> None:
    """Print the forecast of a run."""
    there = f" ({expected.there} are there)" if expected.there else ""
    print(f"{expected.folder}: {expected.networks} networks to make{there}, {expected.tasks} tasks")
    needs, short = expected.bytes + expected.journal_bytes, ""
    if needs > expected.free:
        short = f": {decimal(needs - expected.free)} too little; make room, or choose --out on another disk"
    print(f"size {decimal(expected.bytes)}; until it is sealed, a journal of {decimal(expected.journal_bytes)}")
    print(f"free on this disk {decimal(expected.free)}{short}")
    if expected.epochs_per_second is None:
        print("there is nothing to make")
        print_next("inspect", expected.folder)
        return
    low, high = expected.seconds
    print(f"time {duration(low)} to {duration(high)} ({expected.epochs_per_second:.1f} epochs/s measured here)")
    if not expected.known:
        print("this recipe is not the default one: the time is that of the default recipe's numbers of epochs")
    print_next(say="the same command without --dry-run")


def print_task(report: TaskReport) -> None:
    """Print what the networks of a task do on fresh sequences."""
    print(f"{report.task} ({report.alias}): {report.networks} complete networks")
    rows = ((row.meaning, *(f"{v:.4%}" for v in (row.median, row.low, row.worst))) for row in report.figures)
    _print_table(("share of", "median", "5th percentile", "worst"), rows)


def print_network(report: NetworkReport) -> None:
    """Print a network's row and its answers to a fresh sequence."""
    for key, value in report.row.items():
        print(f"{key:16} {value}")
    print(f"\nA fresh sequence, output lines {', '.join(map(str, report.live_lines))}:")
    rows = []
    for answer in report.answers:
        values, expected = " ".join(f"{value:.3f}" for value in answer.values), " ".join(map(str, answer.expected))
        rows.append((answer.step, answer.command, expected, values, "ok" if answer.right else "wrong"))
    _print_table(("step", "command", "expected", "answer", ""), rows)


def print_below(rows: list[dict[str, Any]]) -> None:
    """Print the datasets in a folder."""
    cells = ([("-" if value is None else value) for value in row.values()] for row in rows)
    _print_table(rows[0], cells)
    finished = [row["folder"] for row in rows if row["state"] == "finished"]
    print_next(*(("inspect", finished[0]) if finished else ("status", rows[0]["folder"])))


def clear() -> None:
    """Wipe the terminal; elsewhere, leave a line empty."""
    print("\x1b[2J\x1b[H" if sys.stdout.isatty() else "", flush=True)


def print_status(status: FolderStatus) -> None:
    """Print what is finished: a row for each machine, or for transducers how many have which share of their networks."""
    page = overview.transducers(status)
    if status.spec.part is not None:
        print(f"{status.spec.scope} of a dataset")
    if page is None:
        rows, size = [], status.spec.recipe.architecture.size
        for task, total in status.spec.counts.items():
            complete, waiting = status.complete(task), status.in_progress(task)
            other, updated = total - complete - waiting, _date(status.updated.get(task))
            rows.append((task, complete, other, waiting, total, size, updated))
        _print_table(("task", "complete", "other", status.waiting, "total", "parameters", "last update"), rows)
    else:
        _print_transducers(page, status)
    for task, index, reason in status.quarantined:
        print(f"quarantined: {task} {index}: {reason}")
    if status.digest:
        print(f"digest {status.digest}")
        print_next("verify", status.folder)
    else:
        _print_run(status.run)
        print_next_to_unfinished(status)


_MOST_WORKERS = 20


def _print_run(run: overview.RunStatus | None) -> None:
    """Print the run that is under way, or the last one: who works on what."""
    if run is None:
        print("no run is known; the command that started it goes on with it")
        return
    activity, means = run.activity, f"{run.info.get('executor', 'processes')}, {run.info.get('backend', 'cpu')}"
    for death in activity.latest_deaths:
        what = f"{death.task} {death.start}-{death.stop - 1}, {death.worker or 'an unknown worker'}: {death.cause}"
        print(one_line(f"{_date(death.time)} {what}"))
    if run.holder is None:
        last = "networks came with a merge" if "merged" in run.info else f"the last one ({means}) was interrupted"
        print(one_line(f"no run is under way; {last}, {_date(activity.latest)}"))
        return
    print(one_line(f"under way: {run.holder} ({means}); {activity.workers} at the same time"))
    left = "" if run.seconds_left is None else f", {duration(run.seconds_left)} left"
    print(f"{activity.networks_per_second:.2f} networks/s in the last minutes{left}; workers lost: {activity.deaths}")
    at = {unit.worker: unit for unit in activity.under_way if unit.worker}
    made = {member.name: member.networks for member in activity.members}
    names = [*at, *(name for name in made if name not in at)]
    rows = []
    for name in names[:_MOST_WORKERS]:
        what, since = "-", "-"
        if unit := at.get(name):
            what, since = f"{unit.task} {unit.start}-{unit.stop - 1}", duration(max(0.0, time.time() - unit.since))
        rows.append((one_line(name), made.get(name, 0), one_line(what), since))
    if rows:
        _print_table(("worker", "networks", "works on", "for"), rows)
    if len(names) > _MOST_WORKERS:
        print(f"… and {len(names) - _MOST_WORKERS} more workers; --json has them all")


def _print_transducers(page: overview.Transducers, status: FolderStatus) -> None:
    number = len(status.spec.tasks)
    waiting = sum(status.in_progress(task) for task, _ in status.spec.tasks)
    other = page.total - page.complete - waiting
    made = f"{page.complete} of {page.total} networks complete, {other} other"
    print(f"{number} transducers: {made}, {waiting} {status.waiting}")
    for milestone, done in page.milestones.items():
        print(f"  {number} x {milestone:,}: {done / (number * milestone):.1%}")
    _print_table([f"at {share}" for share in page.shares], [page.shares.values()])
    updated = _date(max(status.updated.values(), default=None))
    print(f"{status.spec.recipe.architecture.size} parameters; last update {updated}")


def _date(unix_time: float | None) -> str:
    if unix_time is None:
        return "-"
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_time))
    except (OverflowError, ValueError, OSError):  # a stranger's folder may give any number
        return "-"


def print_verification(result: Verification) -> None:
    """Print what was checked and what is wrong."""
    for problem in result.problems:
        print(f"problem: {problem}")
    counted = [f"{result.files} files"]
    if result.networks:
        counted += [f"{result.networks} networks", f"{result.losses_recomputed} losses computed again"]
    elif result.tasks:
        counted.append(f"sequences and tables of {result.tasks} tasks made again")
    if result.retrained:
        counted.append(f"{result.retrained} networks trained again (picked with seed {result.retrain_seed})")
    print(f"{'ok' if result.ok else f'{len(result.problems)} problems'}: {', '.join(counted)}")
    if result.forgeries is not None:
        share = result.forgeries / result.networks
        print(f"{result.forgeries} forged networks or more ({share:.2%}) would have shown with a probability of 95 %")
    if result.digest:
        print(f"digest {result.digest}")
    for name, digest in result.digests.items() if result.ok else ():
        print(f"digest of {name} {digest}")


def print_merged(merged: Merged) -> None:
    """Print what was merged, what was refused and why, and what is missing."""
    for source in merged.sources:
        part = "" if source.part is None else f", {source.part}"
        retrained = f", {source.retrained} trained again" if source.retrained else ""
        came = "refused" if merged.refused(source) else f"{source.added} of them new"
        print(f"{source.folder}{part}: {source.networks} networks{retrained}, {came}")
    for problem in merged.problems:
        print(f"problem: {problem}")
    if merged.retrain_seed is not None:
        print(f"networks to train again were picked with seed {merged.retrain_seed}")
    if merged.missing:
        print(f"missing: {', '.join(merged.missing)}")
    print(f"{merged.folder}: {merged.networks} of {merged.total} networks")
    if merged.digest is None:
        print_next(say=f"tinymlds merge what is missing into it (--out {shlex.quote(str(merged.folder))}), or train it")
    else:
        print(f"digest {merged.digest}")
        print_next("verify", merged.folder)


def print_package(made: Packaged) -> None:
    """Print the contents of a package."""
    failed = f", {made.failed} failed the audit and are in no split" if made.failed else ""
    print(f"{made.folder}: {made.networks} networks, {made.complete} complete and audited{failed}, {decimal(made.bytes)}")
    for name, digest in made.digests.items():
        print(f"digest of {name} {digest}")
    for side in made.empty:
        print(f"warning: no network is in splits/by_index/{side}; a larger --count fills it")
    if not (made.folder / PARQUET).exists():
        print(f"without {PARQUET}, as pyarrow is not installed: pip install 'tinymlds[publish]'")
    print_next("verify", made.folder)


def print_empty(splits: list[str], seed: int) -> None:
    """Warn of splits without networks; with --quiet, nothing."""
    for split in () if quiet() else splits:
        print(f"warning: no network is in the split {split}; {fill_splits(seed)}", file=sys.stderr)


def print_results(results: Results) -> None:
    """Print a table of rungs for each case, and its notes."""
    for dataset in results.datasets:
        held_out = ", held out" if dataset["held_out"] else ""
        differs = f", differs from the first in {', '.join(dataset['differs'])}" if dataset["differs"] else ""
        complete = f"{sum(dataset['complete'].values())} complete networks"
        print(f"{dataset['folder']}: {complete}{held_out}{differs}, {dataset['digest']}")
    for case in results.cases:
        rows = results.of_case(case)
        done = next((row for row in rows if row.status == "done"), None)
        print(
            f"\n{results.experiment}, {case}: " + (f"{done.metric}, a guess gets {done.chance:.3f}" if done else "skipped")
        )
        seconds = results.provenance["seconds"]
        cells = ((row.rung, *_scores(row), f"{seconds[f'{case}/{row.rung}']:.1f}") for row in rows)
        _print_table(("rung", "mean", "+-", "", "further", "s"), cells)
        _print_confusion(rows)
        for rung, note in results.notes_of(case):
            print(f"{rung}: {note}")
    if results.pairs:
        print(f"\n{results.pairs}")
    if found := results.published:
        print(f"\npublished: {found['score']:.1%} {found['metric']}, {found['what']} ({found['source']})")
    print(f"\n+-: {results.interval}\nagain: {results.command}")


def _scores(row: Row) -> tuple[str, str, str, str]:
    if row.mean is None or row.half_width is None:
        return row.status, "", "", ""
    further = (f"{name} {sum(values) / len(values):.3f}" for name, values in (row.others or {}).items())
    return f"{row.mean:.3f}", f"{row.half_width:.3f}", "chance" if row.at_chance else "", ", ".join(further)


_LARGEST_CONFUSION = 12


def _print_confusion(rows: list[Row]) -> None:
    """Print the confusion matrix of the best rung on plain weights, if it is small enough to read."""
    plain = [row for row in rows if row.confusion and row.rung.endswith("/raw/plain") and row.mean is not None]
    best = max(plain, key=lambda row: row.mean or 0.0, default=None)
    if best is None or best.confusion is None or len(best.classes) > _LARGEST_CONFUSION:
        return
    print()
    counts = zip(best.classes, best.confusion, strict=True)
    _print_table((f"{best.rung}: is, taken for", *best.classes), ((name, *each) for name, each in counts))


def _print_table(headers: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, header in enumerate(headers):
        table.add_column(header, justify="left" if number == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(str, row))
    Console(width=None if sys.stdout.isatty() else 160).print(table)
