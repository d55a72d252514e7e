"""The command line: parse, call a plain function, print. Reports go to stdout, progress and errors to stderr.

Exit codes: 0 done; 1 a check failed or networks are missing; 2 usage; 130 and 143 interrupted by Ctrl-C and SIGTERM.
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from tinymlds import completion
from tinymlds.commands import command, print_json, recipe_options

app = typer.Typer(
    help="A factory for populations of small neural networks trained on exactly known tasks.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Place = Annotated[Path, typer.Argument(help="A dataset folder, or a package.", show_default=False)]
Name = Annotated[
    str | None, typer.Option(help="The dataset of a package; needless where there is one.", show_default=False)
]
Subset = Annotated[
    int | None, typer.Option(help="Of a package: the subset with so many networks of each task.", show_default=False)
]
Machine = Annotated[
    str | None,
    typer.Option(
        help="eightbit, direct, invert, xor or parity; SimpleXORMachine and so on are accepted too.",
        show_default=False,
        autocompletion=completion.machines,
    ),
]
Modified = Annotated[bool, typer.Option("--modified", help="The machine's modified twin, with a hidden trigger.")]
Tasks = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help="ds1 (machines), ds2 (their modified twins) or ds3 (transducers).",
        show_default=False,
        autocompletion=completion.datasets,
    ),
]
Transducers = Annotated[
    int | None, typer.Option(help="Only the first so many transducers of ds3. (default: 100)", show_default=False)
]
Only = Annotated[int | None, typer.Option(help="Only this transducer of ds3.", show_default=False)]
Seed = Annotated[int | None, typer.Option(help="Seed of the dataset. (default: the folder's, or 0)", show_default=False)]
Picks = Annotated[
    int | None, typer.Option(min=0, help="Picks them. (default: a new one, which is said)", show_default=False)
]
Checkers = Annotated[
    int | None, typer.Option(min=1, help="Processes and threads. (default: one a CPU)", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]


@app.command()
@recipe_options
@command
def train(
    count: Annotated[int, typer.Option(help="Networks to make of each task; a larger count extends the folder.")],
    machine: Machine = None,
    modified: Modified = False,
    tasks: Tasks = None,
    transducers: Transducers = None,
    only: Only = None,
    out: Annotated[
        Path | None, typer.Option(help="Dataset folder. (default: named after the task or dataset)", show_default=False)
    ] = None,
    seed: Seed = None,
    checkpoints: Annotated[
        str | None,
        typer.Option(
            help="Epochs at whose end weights are stored, like 0,1,2,4,8. (default: the folder's, or none)",
            show_default=False,
        ),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(
            help="Only this part, like 2/8: each has every eighth network; see merge. (default: the whole)",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes or threads; with cuda, networks at once. (default: one a CPU; what the GPU has room for)",
            show_default=False,
        ),
    ] = None,
    backend: Annotated[
        str, typer.Option(help="What to train on: cpu, or cuda (an NVIDIA GPU).", autocompletion=completion.backends)
    ] = "cpu",
    executor: Annotated[
        str,
        typer.Option(
            help="What runs the workers: processes, threads, or dask (the workers of a cluster that you trust).",
            autocompletion=completion.executors,
        ),
    ] = "processes",
    scheduler: Annotated[
        str | None,
        typer.Option(help="With dask: the address of its scheduler, like tcp://HOST:8786.", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would come to, and make nothing.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    *,
    recipe: dict[str, Any],
) -> None:
    """Make networks into a dataset folder. The same command again goes on after an interruption.

    Example: tinymlds train --machine xor --count 1000 --out xor-1000
    """
    from tinymlds import console, dataset, farm, forecast, reports
    from tinymlds.errors import UsageError
    from tinymlds.spec import parse_checkpoints, parse_part
    from tinymlds.tasks import choose

    epochs = None if checkpoints is None else parse_checkpoints(checkpoints)
    if dry_run:
        if executor != "processes" or scheduler is not None:
            raise UsageError("--dry-run measures processes of this machine; leave out --executor and --scheduler")
        name, chosen = choose(machine, modified, tasks, transducers, only)
        wanted = farm.Wanted(chosen, count, seed, epochs, recipe, None if part is None else parse_part(part))
        folder = out or Path(farm.default_folder(name, wanted.part))
        expected = forecast.forecast(wanted, folder, workers, backend)
        print_json(expected) if as_json else console.print_forecast(expected)
        return
    with console.TrainProgress(quiet) as progress:
        result = farm.train(
            machine,
            count,
            out,
            modified=modified,
            dataset=tasks,
            transducers=transducers,
            only=only,
            seed=seed,
            checkpoints=epochs,
            part=part,
            workers=workers,
            backend=backend,
            executor=executor,
            scheduler=scheduler,
            progress=progress,
            **recipe,
        )
    report = reports.folder_report(dataset.Dataset(result.folder))
    run = result.progress
    if as_json:
        made = {"networks": run.made, "epochs": run.epochs, "seconds": run.seconds, "networks_per_second": run.rate}
        made |= {"damaged": result.damaged} if result.damaged else {}
        print_json({**dataclasses.asdict(report), "run": made})
        return
    console.print_folder(report)
    if run.made:
        print(f"{run.made} networks made in {run.seconds:.1f} s ({run.rate:.2f} networks/s)")
    else:
        print("all of them were there already")
    if result.damaged:
        print(f"{result.damaged} of them had been damaged in the journal and were made again; look at the disk")
    if not quiet:
        console.print_next("inspect", result.folder, report.tasks[0].task)


@app.command()
@recipe_options
@command
def generate(
    machine: Machine = None,
    modified: Modified = False,
    tasks: Tasks = None,
    transducers: Transducers = None,
    only: Only = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write. (default: like xor-sequences)", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sequences.")] = 0,
    as_json: Json = False,
    *,
    recipe: dict[str, Any],
) -> None:
    """Write tables and sequences, and a manifest of them, without training.

    Example: tinymlds generate --machine xor --out xor-sequences
    """
    from tinymlds import console, farm

    folder = farm.generate(
        machine, out, modified=modified, dataset=tasks, transducers=transducers, only=only, seed=seed, **recipe
    )
    sizes = {path: path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}
    if as_json:
        files = [{"name": path.relative_to(folder).as_posix(), "bytes": size} for path, size in sizes.items()]
        print_json({"folder": folder, "files": files})
        return
    for path, size in sizes.items():
        print(f"{size:>10} {path}")
    console.print_next("verify", folder)


@app.command()
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
    from tinymlds import console, overview

    found = overview.status(folder, name, subset)
    while watch and not found.digest:
        _print_status(found, as_json, watch)
        time.sleep(every)
        if not as_json:
            console.clear()
        found = overview.status(folder, name, subset)
    _print_status(found, as_json, watch)


def _print_status(found: Any, as_json: bool, watch: bool) -> None:
    from tinymlds import console, overview

    if as_json:
        spec = {**found.spec.to_dict(), "counts": found.counts, "quarantined": found.quarantined}
        page = {"folder": str(found.folder), "digest": found.digest, "updated": found.updated, **spec}
        page["run"] = overview.describe_run(found.run)
        transducers = (t := overview.transducers(found)) and dataclasses.asdict(t)
        print_json({**page, "transducers": transducers}, one_line=watch)
    else:
        console.print_status(found)


@app.command()
@command
def verify(
    folder: Annotated[Path, typer.Argument(help="A dataset folder, or a package.", show_default=False)],
    retrain: Annotated[
        int, typer.Option(min=0, help="Pick so many networks at random and train them again; 59 catch 5 % of forged ones.")
    ] = 0,
    seed: Picks = None,
    workers: Checkers = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Check every hash, and compute every network's validation loss again from the written weights, bit by bit.

    Example: tinymlds verify xor-1000 --retrain 59
    """
    from tinymlds import console, running, verification

    workers = running.available_cpus() if workers is None else workers
    progress = console.VerifyProgress(quiet or as_json)
    result = verification.verify(folder, progress, retrain=retrain, workers=workers, seed=seed)
    if as_json:
        print_json({**dataclasses.asdict(result), "ok": result.ok})
    else:
        console.print_verification(result)
        console.print_next_to_verify(result)
    return 0 if result.ok else 1


@app.command()
@command
def merge(
    folders: Annotated[
        list[Path], typer.Argument(help="Parts of a dataset, or what was merged of them before.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="The dataset folder; what it holds already stays.", show_default=False)],
    retrain: Annotated[
        int, typer.Option(min=0, help="Of each folder, pick so many networks at random and train them again first.")
    ] = 0,
    seed: Picks = None,
    workers: Checkers = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Merge parts of a dataset, made anywhere by `train --part K/N`, into the dataset. Each is checked first.

    Example: tinymlds merge xor-1-of-2 xor-2-of-2 --out xor
    """
    from tinymlds import console, merging

    progress = console.MergeProgress(quiet or as_json)
    result = merging.merge(folders, out, retrain=retrain, seed=seed, workers=workers, progress=progress)
    if as_json:
        print_json({**dataclasses.asdict(result), "problems": result.problems, "ok": result.ok})
    else:
        console.print_merged(result)
    return 0 if result.ok else 1


@app.command()
@command
def package(
    folders: Annotated[list[Path], typer.Argument(help="Sealed dataset folders.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The package to make; it must not exist.", show_default=False)],
    subsets: Annotated[
        str | None, typer.Option(help="Also make folders of the first so many networks of each task, like 100,500.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title. (default: the folders' names)", show_default=False)] = None,
    author: Annotated[list[str] | None, typer.Option(help="An author; may be repeated.", show_default=False)] = None,
    license: Annotated[str, typer.Option(help="Licence of the data, an SPDX expression.")] = "CC-BY-SA-4.0",
    date: Annotated[str | None, typer.Option(help="Day of publication, YYYY-MM-DD.", show_default=False)] = None,
    url: Annotated[str | None, typer.Option(help="Where it will be found.", show_default=False)] = None,
    software_url: Annotated[
        str | None, typer.Option(help="Where tinymlds is found, for whoever gets the package.", show_default=False)
    ] = None,
    hosts: Annotated[bool, typer.Option("--hosts", help="Keep the names of hosts in provenance.jsonl.")] = False,
    tolerate: Annotated[
        bool, typer.Option("--tolerate", help="Publish although networks fail the audit; they are in no split.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads for the audit. (default: one a CPU)", show_default=False)
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Put sealed datasets into a package to publish: subsets, splits, an audit of every network, a card, descriptions.

    Example: tinymlds package ds1 ds2 --out mlds --subsets 100,500
    """
    from tinymlds import console, publish, running

    made = publish.package(
        folders,
        out,
        subsets=publish.parse_counts(subsets or ""),
        hosts=hosts,
        tolerate=tolerate,
        workers=running.available_cpus() if workers is None else workers,
        progress=console.VerifyProgress(quiet or as_json),
        title=title,
        license=license,
        authors=tuple(author or ()),
        date=date,
        url=url,
        software_url=software_url,
    )
    if as_json:
        print_json(made)
    else:
        console.print_package(made)


@app.command()
@command
def inspect(
    folder: Place,
    task: Annotated[
        str | None,
        typer.Argument(help="A task of it.", show_default=False, autocompletion=completion.tasks_of_folder),
    ] = None,
    index: Annotated[int | None, typer.Argument(help="A network of that task.", show_default=False)] = None,
    name: Name = None,
    subset: Subset = None,
    as_json: Json = False,
) -> None:
    """Look at a dataset, at a task's networks on fresh sequences, or at one network's answers.

    Example: tinymlds inspect xor-1000 xor 17
    """
    from tinymlds import console, dataset, reports
    from tinymlds.errors import UsageError

    opened = dataset.open_dataset(folder, name, subset)
    report: Any
    show: Callable[[Any], None]
    then: tuple[Any, ...]
    try:
        if task is None:
            report, show = reports.folder_report(opened), console.print_folder
            then = ("inspect", opened.folder, opened.tasks[0])
        elif index is None:
            report, show = reports.task_report(opened, task), console.print_task
            then = ("inspect", opened.folder, report.task, 0)
        else:
            report, show = reports.network_report(opened, task, index), console.print_network
            then = ("verify", opened.folder)
    except KeyError as error:
        raise UsageError(error.args[0]) from error
    if as_json:
        print_json(report)
    else:
        show(report)
        console.print_next(*then)


@app.command()
@command
def report(
    folder: Place,
    out: Annotated[Path | None, typer.Option(help="The page. (default: report.html)", show_default=False)] = None,
    figures: Annotated[
        Path | None, typer.Option(help="Folder to write figures to, for papers, in place of the page.", show_default=False)
    ] = None,
    form: Annotated[str, typer.Option("--format", help="Of the figures: png or svg.")] = "png",
    only: Annotated[list[str] | None, typer.Option(help="Only the figure of this name; can be repeated.")] = None,
    network: Annotated[list[str] | None, typer.Option(help="A network to look at, like xor:17; can be repeated.")] = None,
    canonical: Annotated[bool, typer.Option("--canonical", help="Map networks in their canonical form.")] = False,
    points: Annotated[int, typer.Option(min=2, max=200_000, help="Networks on the map, at most.")] = 50_000,
    analysis: Annotated[
        list[Path] | None,
        typer.Option(help="Show this file of `tinymlds analyze --out` too; can be repeated.", show_default=False),
    ] = None,
    name: Name = None,
    subset: Subset = None,
    as_json: Json = False,
) -> None:
    """Write one HTML page to look at a dataset, or its figures as files.

    Example: tinymlds report xor-1000 --out xor.html
    """
    from tinymlds import console, reports
    from tinymlds import report as reporting
    from tinymlds.errors import UsageError
    from tinymlds.report.options import Options, parse_network

    networks = tuple(parse_network(text) for text in network or ())
    options = Options(canonical, points, networks, name, subset, tuple(analysis or ()))
    if only and figures is None:
        raise UsageError("only is for figures; give a folder for them with --figures")
    written = []
    if figures is not None:
        written += reporting.write_figures(folder, figures, form, tuple(only or ()), options)
    if out is not None or figures is None:
        written.append(reporting.write_page(folder, out or Path("report.html"), options))
    if as_json:
        print_json({"folder": folder, "files": [dataclasses.asdict(reports.file_report(path)) for path in written]})
        return
    for path in written:
        print(path)
    if figures is None:
        shown = [word for path in options.analyses for word in ("--analysis", path)]
        console.print_next("report", folder, *options.of_package(), *shown, "--figures", "figures", "--format", "svg")
    else:
        console.print_next("inspect", folder, *options.of_package())


@app.command()
@command
def export(
    folder: Place,
    task: Annotated[str, typer.Argument(help="A task of it.", show_default=False)],
    index: Annotated[int, typer.Argument(help="A network of that task.", show_default=False)],
    out: Annotated[Path, typer.Option(help="File to write: .safetensors, or .npz.", show_default=False)],
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
    name: Name = None,
    subset: Subset = None,
    as_json: Json = False,
) -> None:
    """Write one network as a file of its own, for PyTorch, NumPy and other tools.

    Example: tinymlds export xor-1000 xor 17 --out net.safetensors
    """
    from tinymlds import console, dataset, reports
    from tinymlds.errors import UsageError

    opened = dataset.open_dataset(folder, name, subset)
    try:
        network = opened[task, index]
    except KeyError as error:
        raise UsageError(error.args[0]) from error
    written, row = network.save(out, force), network.row
    if as_json:
        stated = {key: row[key] for key in ("task", "index", "weights_sha256")}
        print_json({"folder": folder, **stated, "files": [dataclasses.asdict(reports.file_report(written))]})
        return
    print(written)
    console.print_next("inspect", opened.folder, row["task"], row["index"])


@app.command()
@command
def analyze(
    folders: Annotated[list[Path], typer.Argument(help="Dataset folders.", show_default=False)],
    experiment: Annotated[
        str,
        typer.Option(
            help="which-machine, tampered, tampered-unseen (a machine never seen), which-transducer or predict-epochs.",
            show_default=False,
        ),
    ],
    seeds: Annotated[int, typer.Option(help="Splits, and seeds of models and of random symmetries.")] = 5,
    rungs: Annotated[
        str | None, typer.Option(help="Some, like majority,forest/raw/*; a model is all its rungs.", show_default=False)
    ] = None,
    cases: Annotated[str | None, typer.Option(help="Some, like xor,parity.", show_default=False)] = None,
    networks: Annotated[
        int | None, typer.Option(min=3, help="Only the first so many of each task. (default: all)", show_default=False)
    ] = None,
    held_out: Annotated[
        list[Path] | None,
        typer.Option(help="Test on this dataset of another seed; may be given several times.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="File for the JSON; until it is there, FILE.rows has what is finished.", show_default=False),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Seeds worked on at the same time. (default: one a CPU)", show_default=False),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Ask what the weights reveal, from a guess up to a network that respects the symmetries. Extra [analysis].

    Example: tinymlds analyze ds1 --experiment which-machine --out which-machine.json
    """
    from tinymlds import console, running
    from tinymlds.analysis import experiments

    results = experiments.analyze(
        folders,
        experiment,
        seeds=seeds,
        rungs=rungs,
        cases=cases,
        networks=networks,
        held_out=held_out or (),
        out=out,
        workers=running.available_cpus() if workers is None else workers,
        progress=console.AnalysisProgress(quiet or as_json),
    )
    if as_json:
        print(results.to_json(), end="")
        return
    console.print_results(results)
    if out is None:
        console.print_again(results, f"{experiment}.json")
    else:
        console.print_next("report", folders[0], "--analysis", out)


def main() -> None:
    """The command `tinymlds`."""
    app()


if __name__ == "__main__":
    main()
