"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

from tinymlds.cli import completion

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
