"""Commands that make dataset folders and packages."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tinymlds.cli import completion
from tinymlds.cli.common import AT_END, command, print_json
from tinymlds.cli.options import (
    Checkers,
    Json,
    Machine,
    Modified,
    Only,
    Picks,
    Seed,
    Tasks,
    Transducers,
    argument,
    making_options,
    option,
)


@command
@making_options
def train(
    count: Annotated[int | None, option(help="Networks to make of each task; a larger count extends the folder.")] = None,
    machine: Machine = None,
    modified: Modified = False,
    tasks: Tasks = None,
    transducers: Transducers = None,
    only: Only = None,
    out: Annotated[Path | None, option(help="Dataset folder. (default: named after the task or dataset)")] = None,
    seed: Seed = None,
    checkpoints: Annotated[
        str | None, option(help="Epochs at whose end weights are stored, like 0,1,2,4,8. (default: the folder's, or none)")
    ] = None,
    part: Annotated[
        str | None, option(help="Only this part, like 2/8: each has every eighth network; see merge. (default: the whole)")
    ] = None,
    workers: Annotated[
        int | None,
        option(help="Processes or threads; with cuda, networks at once. (default: one a CPU; what the GPU has room for)"),
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
    scheduler: Annotated[str | None, option(help="With dask: the address of its scheduler, like tcp://HOST:8786.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would come to, and make nothing.")] = False,
    as_json: Json = False,
    *,
    recipe: dict[str, Any],
) -> None:
    """Make networks into a dataset folder. The same command again goes on after an interruption.

    Example: tinymlds train xor --count 1000 --out xor-1000
    """
    from tinymlds.cli import console, progress
    from tinymlds.dataset import dataset, manifest, summary
    from tinymlds.errors import UsageError
    from tinymlds.runs.dry_run import forecast
    from tinymlds.runs.execution import check_resources
    from tinymlds.runs.train import Request, make
    from tinymlds.spec import parse_checkpoints, parse_part
    from tinymlds.tasks.catalog import choose

    epochs = None if checkpoints is None else parse_checkpoints(checkpoints)
    if dry_run and (executor != "processes" or scheduler is not None):
        raise UsageError("--dry-run measures processes of this machine; leave out --executor and --scheduler")
    name, chosen = choose(machine, modified, tasks, transducers, only)
    request = Request(name, chosen, count, seed, epochs, recipe, None if part is None else parse_part(part))
    resources = check_resources(backend, workers, executor, scheduler)
    if dry_run:
        expected = forecast(request, request.folder(out), resources)
        print_json(expected) if as_json else console.print_forecast(expected)
        return
    result = make(request, out, resources, progress.of_training())
    sealed = dataset.Dataset(result.folder)
    report = summary.folder_report(sealed)
    run = result.progress
    if as_json:
        made = {"networks": run.made, "epochs": run.epochs, "seconds": run.seconds, "networks_per_second": run.rate}
        made |= {"damaged": result.damaged} if result.damaged else {}
        print_json({**vars(report), "run": made})
        return
    console.print_folder(report)
    if run.made:
        print(f"{run.made} networks made in {run.seconds:.1f} s ({run.rate:.2f} networks/s)")
    else:
        print("all of them were there already")
    if result.damaged:
        print(f"{result.damaged} of them had been damaged in the journal and were made again; look at the disk")
    console.print_empty(manifest.empty_splits(sealed.spec), sealed.spec.seed)
    console.print_next("inspect", result.folder, report.tasks[0].task)


@command
@making_options
def generate(
    machine: Machine = None,
    modified: Modified = False,
    tasks: Tasks = None,
    transducers: Transducers = None,
    only: Only = None,
    out: Annotated[Path | None, option(help="Folder to write. (default: like xor-sequences)")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sequences.")] = 0,
    as_json: Json = False,
    *,
    recipe: dict[str, Any],
) -> None:
    """Write tables and sequences, and a manifest of them, without training.

    Example: tinymlds generate xor --out xor-sequences
    """
    from tinymlds.cli import console
    from tinymlds.runs.train import generate as generate_sequences

    folder = generate_sequences(
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


@command
def merge(
    folders: Annotated[list[Path], argument(help="Parts of a dataset, or what was merged of them before.")],
    out: Annotated[Path, option(help="The dataset folder; what it holds already stays.")],
    retrain: Annotated[
        int, typer.Option(min=0, help="Of each folder, pick so many networks at random and train them again first.")
    ] = 0,
    seed: Picks = None,
    workers: Checkers = None,
    as_json: Json = False,
) -> int:
    """Merge parts of a dataset, made anywhere by `train --part K/N`, into the dataset. Each is checked first.

    Example: tinymlds merge xor-1-of-2 xor-2-of-2 --out xor
    """
    from tinymlds.cli import console, progress
    from tinymlds.verification import merging

    meter = progress.Meter("networks checked")

    def count(of: str, done: int, total: int) -> None:
        meter(done, total, of=of)

    result = merging.merge(folders, out, retrain=retrain, seed=seed, workers=workers, progress=count)
    AT_END.close()
    if as_json:
        print_json({**vars(result), "problems": result.problems, "ok": result.ok})
    else:
        console.print_merged(result)
    return 0 if result.ok else 1


@command
def package(
    folders: Annotated[list[Path], argument(help="Sealed dataset folders.")],
    out: Annotated[Path, option(help="The package to make; it must not exist.")],
    subsets: Annotated[
        str | None, typer.Option(help="Also make folders of the first so many networks of each task, like 100,500.")
    ] = None,
    title: Annotated[str | None, option(help="Title. (default: the folders' names)")] = None,
    author: Annotated[list[str] | None, option(help="An author; may be repeated.")] = None,
    license: Annotated[str, typer.Option(help="Licence of the data, an SPDX expression.")] = "CC-BY-SA-4.0",
    date: Annotated[str | None, option(help="Day of publication, YYYY-MM-DD.")] = None,
    url: Annotated[str | None, option(help="Where it will be found.")] = None,
    software_url: Annotated[str | None, option(help="Where tinymlds is found, for whoever gets the package.")] = None,
    hosts: Annotated[bool, typer.Option("--hosts", help="Keep the names of hosts in provenance.jsonl.")] = False,
    tolerate: Annotated[
        bool, typer.Option("--tolerate", help="Publish although networks fail the audit; they are in no split.")
    ] = False,
    weights: Annotated[
        bool, typer.Option("--weights", help="Also write rows with weights, for datasets.load_dataset.")
    ] = False,
    workers: Annotated[int | None, option(min=1, help="Threads for the audit. (default: one a CPU)")] = None,
    as_json: Json = False,
) -> None:
    """Put sealed datasets into a package to publish: subsets, splits, an audit of every network, a card, descriptions.

    Example: tinymlds package ds1 ds2 --out mlds --subsets 100,500
    """
    from tinymlds import publish
    from tinymlds.cli import console, progress
    from tinymlds.runs import execution

    made = publish.package(
        folders,
        out,
        subsets=publish.parse_counts(subsets or ""),
        hosts=hosts,
        tolerate=tolerate,
        weights=weights,
        workers=execution.available_cpus() if workers is None else workers,
        progress=progress.Meter("networks audited"),
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
