"""Options that several commands have, those of the recipe among them."""

import functools
import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from tinymlds.cli import completion
from tinymlds.cli.common import KEYWORD, take
from tinymlds.cli.usage import explained
from tinymlds.errors import UsageError

option, argument = (partial(kind, show_default=False) for kind in (typer.Option, typer.Argument))
"""Options and arguments whose help says what their default is, or that have none."""

Place = Annotated[Path, argument(help="A dataset folder, or a package.")]
Name = Annotated[str | None, option(help="The dataset of a package; needless where there is one.")]
Subset = Annotated[int | None, option(help="Of a package: the subset with so many networks of each task.")]
What = Annotated[
    str | None,
    argument(
        help="A task, like xor, or a dataset, like ds1: in place of --machine and --dataset.",
        autocompletion=completion.machines,
    ),
]
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


def making_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command what it takes to say what to make: a task or a dataset as an argument, which becomes `machine`, and an
    option for every field of the recipe, and files of them, which become `recipe`.
    """
    from tinymlds.spec import known_options

    known = known_options().values()
    types: dict[str, Any] = {"int": int, "float": float, "str": str, "bool": bool}

    @functools.wraps(function)
    def with_recipe(context: typer.Context, what: str | None, **kwargs: Any) -> None:
        from tinymlds.cli import recipes

        if what is not None and kwargs["machine"] is not None:
            raise UsageError(f"name the task once: {what}, or --machine {kwargs['machine']}")
        kwargs["machine"] = what or kwargs["machine"]
        given = {each.name: kwargs.pop(each.name) for each in known}
        file, show, explain = (kwargs.pop(name) for name in ("recipe_file", "show_recipe", "help_recipe"))
        recipe = recipes.read(file) | {name: value for name, value in given.items() if value is not None}
        if explain:
            recipes.explain(context, recipe)
        elif show:
            recipes.show(recipe, kwargs["out"])
        else:
            function(**kwargs, recipe=recipe)

    file = typer.Option("--recipe", help="TOML file with options of the recipe. Those given here win.", show_default=False)
    show = typer.Option("--show-recipe", help="Print the recipe as such a file, and make nothing.")
    explain = typer.Option("--help-recipe", help="Show the options of the recipe (of --architecture, --optimizer).")
    added = [
        inspect.Parameter("context", KEYWORD, annotation=typer.Context),
        inspect.Parameter("what", KEYWORD, default=None, annotation=What),
        inspect.Parameter("recipe_file", KEYWORD, default=None, annotation=Annotated[Path | None, file]),
        inspect.Parameter("show_recipe", KEYWORD, default=False, annotation=Annotated[bool, show]),
        inspect.Parameter("help_recipe", KEYWORD, default=False, annotation=Annotated[bool, explain]),
    ]
    for each in known:
        text, panel = explained(each, each.default)
        option = typer.Option(help=text, show_default=False, rich_help_panel=panel)
        kind = types[each.type] | None
        added.append(inspect.Parameter(each.name, KEYWORD, default=None, annotation=Annotated[kind, option]))
    take(with_recipe, function, added, without="recipe")
    return with_recipe
