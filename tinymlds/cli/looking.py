"""Commands that look at dataset folders: how a run stands, checks, reports, single networks, an analysis."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from tinymlds.cli import completion
from tinymlds.cli.common import AT_END, command, print_json
from tinymlds.cli.options import Checkers, Json, Name, Picks, Place, Subset, argument, option


@command
def status(
    folder: Place,
    watch: Annotated[bool, typer.Option("--watch", help="Say it again and again until the dataset is sealed.")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two of them.")] = 10.0,
    name: Name = None,
    subset: Subset = None,
    as_json: Json = False,
) -> None:
    """Say what is finished and what is not. With --watch, JSON comes as a line each time.

    Example: tinymlds status xor-1000 --watch
    """
    from tinymlds.cli import console
    from tinymlds.dataset import overview

    while True:
        found = overview.status(folder, name, subset)
        if as_json:
            spec = {**found.spec.to_dict(), "counts": found.counts, "quarantined": found.quarantined}
            page = {"folder": found.folder, "digest": found.digest, "updated": found.updated, **spec}
            page |= {"run": overview.describe_run(found.run), "transducers": overview.transducers(found)}
            print_json(page, one_line=watch)
        else:
            console.print_status(found)
        if not watch or found.digest:
            return
        time.sleep(every)
        if not as_json:
            console.clear()


@command
def verify(
    folder: Place,
    retrain: Annotated[
        int, typer.Option(min=0, help="Pick so many networks at random and train them again; 59 catch 5 % of forged ones.")
    ] = 0,
    seed: Picks = None,
    workers: Checkers = None,
    as_json: Json = False,
) -> int:
    """Check every hash, and compute every network's validation loss again from the written weights, bit by bit.

    Example: tinymlds verify xor-1000 --retrain 59
    """
    from tinymlds.cli import console, progress
    from tinymlds.runs import execution
    from tinymlds.verification import checks

    workers = execution.available_cpus() if workers is None else workers
    meter = progress.Meter("networks")
    result = checks.verify(folder, meter, retrain=retrain, workers=workers, seed=seed)
    AT_END.close()  # a bar may stand where damage ended the count
    if as_json:
        print_json({**vars(result), "ok": result.ok})
    else:
        console.print_verification(result)
        console.print_next_to_verify(result)
    return 0 if result.ok else 1


@command
def inspect(
    folder: Place,
    task: Annotated[str | None, argument(help="A task of it.", autocompletion=completion.tasks_of_folder)] = None,
    index: Annotated[int | None, argument(help="A network of that task.")] = None,
    name: Name = None,
    subset: Subset = None,
    as_json: Json = False,
) -> None:
    """Look at a dataset, at a task's networks on fresh sequences, or at one network's answers; or list the datasets below.

    Example: tinymlds inspect xor-1000 xor 17
    """
    from tinymlds.cli import console
    from tinymlds.dataset import dataset, overview, packages, store, summary
    from tinymlds.errors import UsageError

    ours = (store.SUMS, store.JOURNAL, packages.MARKER)
    listed = task is None and folder.is_dir() and not any((folder / each).exists() for each in ours)
    if listed and (rows := overview.below(folder)):
        print_json(rows) if as_json else console.print_below(rows)
        return
    opened = dataset.open_dataset(folder, name, subset)
    report: Any
    show: Callable[[Any], None]
    then: tuple[Any, ...]
    try:
        if task is None:
            report, show = summary.folder_report(opened), console.print_folder
            then = ("inspect", opened.folder, opened.tasks[0])
        elif index is None:
            report, show = summary.task_report(opened, task), console.print_task
            then = ("inspect", opened.folder, report.task, 0)
        else:
            report, show = summary.network_report(opened, task, index), console.print_network
            then = ("report", opened.folder, "--out", f"{opened.folder.resolve().name}.html")
    except KeyError as error:
        raise UsageError(error.args[0]) from error
    if as_json:
        print_json(report)
    else:
        show(report)
        console.print_next(*then)


@command
def report(
    folder: Place,
    out: Annotated[Path | None, option(help="The page. (default: report.html)")] = None,
    figures: Annotated[Path | None, option(help="Folder to write figures to, for papers, in place of the page.")] = None,
    form: Annotated[str, typer.Option("--format", help="Of the figures: png or svg.")] = "png",
    only: Annotated[list[str] | None, typer.Option(help="Only the figure of this name; can be repeated.")] = None,
    network: Annotated[list[str] | None, typer.Option(help="A network to look at, like xor:17; can be repeated.")] = None,
    canonical: Annotated[bool, typer.Option("--canonical", help="Map networks in their canonical form.")] = False,
    points: Annotated[int, typer.Option(min=2, max=200_000, help="Networks on the map, at most.")] = 50_000,
    analysis: Annotated[
        list[Path] | None, option(help="Show this file of `tinymlds analyze --out` too; can be repeated.")
    ] = None,
    name: Name = None,
    subset: Subset = None,
    as_json: Json = False,
) -> None:
    """Write one HTML page to look at a dataset, or its figures as files.

    Example: tinymlds report xor-1000 --out xor.html
    """
    from tinymlds import report as reporting
    from tinymlds.cli import console, progress
    from tinymlds.dataset import dataset, overview, packages, store, summary
    from tinymlds.errors import UsageError
    from tinymlds.report.options import Options, parse_network

    networks = tuple(parse_network(text) for text in network or ())
    options = Options(canonical, points, networks, name, subset, tuple(analysis or ()))
    if only and figures is None:
        raise UsageError("only is for figures; give a folder for them with --figures")
    written = []
    meter = progress.Meter("figures")
    if figures is not None:
        written += reporting.write_figures(folder, figures, form, tuple(only or ()), options, meter)
    if out is not None or figures is None:
        written.append(reporting.write_page(folder, out or Path("report.html"), options, meter))
    if as_json:
        print_json({"folder": folder, "files": [summary.file_report(path) for path in written]})
        return
    for path in written:
        print(path)
    place = packages.locate(folder, name, subset)
    if (place / store.JOURNAL).exists():
        console.print_next_to_unfinished(overview.status(place))
    else:
        console.print_next_to_report(dataset.Dataset(place), options.analyses)


@command
def export(
    folder: Place,
    task: Annotated[str, argument(help="A task of it.")],
    index: Annotated[int, argument(help="A network of that task.")],
    out: Annotated[Path, option(help="File to write: .safetensors, or .npz.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
    name: Name = None,
    subset: Subset = None,
    as_json: Json = False,
) -> None:
    """Write one network as a file of its own, for PyTorch, NumPy and other tools.

    Example: tinymlds export xor-1000 xor 17 --out net.safetensors
    """
    from tinymlds.cli import console
    from tinymlds.dataset import dataset, summary
    from tinymlds.errors import UsageError

    opened = dataset.open_dataset(folder, name, subset)
    try:
        network = opened[task, index]
    except KeyError as error:
        raise UsageError(error.args[0]) from error
    written, row = network.save(out, force), network.row
    if as_json:
        stated = {key: row[key] for key in ("task", "index", "weights_sha256")}
        print_json({"folder": folder, **stated, "files": [summary.file_report(written)]})
        return
    print(written)
    console.print_next("inspect", opened.folder, row["task"], row["index"])


@command
def analyze(
    folders: Annotated[list[Path], argument(help="Dataset folders.")],
    experiment: Annotated[
        str,
        option(help="which-machine, tampered, tampered-unseen, which-transducer, which-optimizer or predict-epochs."),
    ],
    seeds: Annotated[int, typer.Option(help="Splits, and seeds of models and of random symmetries.")] = 5,
    rungs: Annotated[str | None, option(help="Some, like majority,forest/raw/*; a model is all its rungs.")] = None,
    cases: Annotated[str | None, option(help="Some, like xor,parity.")] = None,
    networks: Annotated[int | None, option(min=3, help="Only the first so many of each task. (default: all)")] = None,
    held_out: Annotated[
        list[Path] | None, option(help="Test on this dataset of another seed; may be given several times.")
    ] = None,
    out: Annotated[
        Path | None, option(help="File for the JSON; until it is there, FILE.rows has what is finished.")
    ] = None,
    workers: Annotated[int | None, option(min=1, help="Seeds worked on at the same time. (default: one a CPU)")] = None,
    as_json: Json = False,
) -> None:
    """Ask what the weights reveal, from a guess up to a network that respects the symmetries; extra "analysis".

    Example: tinymlds analyze ds1 --experiment which-machine --out which-machine.json
    """
    from tinymlds.analysis import experiments
    from tinymlds.cli import console, progress
    from tinymlds.runs import execution

    meter = progress.Meter("fits", each=True)
    results = experiments.analyze(
        folders,
        experiment,
        seeds=seeds,
        rungs=rungs,
        cases=cases,
        networks=networks,
        held_out=held_out or (),
        out=out,
        workers=execution.available_cpus() if workers is None else workers,
        progress=lambda case, rungs, done, total: meter(done, total, of=f"{case}: {rungs}"),
    )
    AT_END.close()
    if as_json:
        print(results.to_json(), end="")
        return
    console.print_results(results)
    if out is None:
        console.print_next(say=f"{results.command} --out {experiment}.json")  # which keeps what comes out for the report
    else:
        console.print_next("report", folders[0], "--analysis", out)
