"""Options that several commands have."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from tinymlds.cli import completion

option, argument = (partial(kind, show_default=False) for kind in (typer.Option, typer.Argument))
"""Options and arguments whose help says what their default is, or that have none."""

Place = Annotated[Path, argument(help="A dataset folder, or a package.")]
Name = Annotated[str | None, option(help="The dataset of a package; needless where there is one.")]
Subset = Annotated[int | None, option(help="Of a package: the subset with so many networks of each task.")]
Machine = Annotated[
    str | None,
    option(
        help="eightbit, direct, invert, xor or parity; SimpleXORMachine and so on are accepted too.",
        autocompletion=completion.machines,
    ),
]
Modified = Annotated[bool, typer.Option("--modified", help="The machine's modified twin, with a hidden trigger.")]
Tasks = Annotated[
    str | None,
    option(
        "--dataset",
        help="ds1 (machines), ds2 (their modified twins) or ds3 (transducers).",
        autocompletion=completion.datasets,
    ),
]
Transducers = Annotated[int | None, option(help="Only the first so many transducers of ds3. (default: 100)")]
Only = Annotated[int | None, option(help="Only this transducer of ds3.")]
Seed = Annotated[int | None, option(help="Seed of the dataset. (default: the folder's, or 0)")]
Picks = Annotated[int | None, option(min=0, help="Picks them. (default: a new one, which is said)")]
Checkers = Annotated[int | None, option(min=1, help="Processes and threads. (default: one a CPU)")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
