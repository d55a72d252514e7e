"""Recipes on the command line: read from TOML files, printed as such, and explained."""

import json
import tomllib
from pathlib import Path
from typing import Any

import typer

from tinymlds.cli.usage import explained
from tinymlds.dataset import overview
from tinymlds.errors import UsageError, nearest, refusing
from tinymlds.spec import Recipe, known_options, recipe_with


def read(file: Path | None) -> dict[str, Any]:
    """Return the options of a recipe file, a flat table of TOML; {} without a file.

    Raises:
        UsageError: it is no TOML, or has a key that is no option of a recipe.
        TinymldsError: it cannot be read.
    """
    if file is None:
        return {}
    try:
        with refusing(f"read {file}"), file.open("rb") as opened:
            found = tomllib.load(opened)
    except ValueError as error:  # of TOML, or of UTF-8
        raise UsageError(
            f"{file} is no TOML ({error}); `tinymlds train --show-recipe` prints a file to begin with"
        ) from error
    known = known_options()
    for name in found:
        if name not in known:
            hint = nearest(name, known) or "; `tinymlds train --help-recipe` says what there is"
            raise UsageError(f"{file}: there is no option {name} of a recipe{hint}")
    return found


def show(recipe: dict[str, Any], folder: Path | None) -> None:
    """Print the whole recipe as TOML: these options, and else those of a folder that is there, or the defaults."""
    base = overview.status(folder).spec.recipe if folder is not None and folder.exists() else Recipe()
    for name, (_, value) in recipe_with(base, recipe).options().items():
        print(f"{name} = {json.dumps(value)}")  # numbers, texts in ASCII, and truth values are written alike in TOML


def explain(context: typer.Context, recipe: dict[str, Any]) -> None:
    """Print help on the options of every recipe, or of those with the architecture and optimizer that are named."""
    kinds = {name: value for name, value in recipe.items() if name in ("architecture", "optimizer")}
    known = known_options()
    shown: dict[str, tuple[str, str] | None] = dict.fromkeys(known)
    if kinds:
        options = Recipe.of(**kinds).options()
        shown = {name: explained(known[name]._replace(text=each.text), value) for name, (each, value) in options.items()}
    command: Any = context.command
    command.format_help(context, context.make_formatter(), only=shown)
