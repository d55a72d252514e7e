"""What Typer leaves open: usage errors in one line, a link to the documentation, and help without the recipe."""

import contextlib
import copy
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from tinymlds.errors import nearest, one_line

if TYPE_CHECKING:
    from tinymlds.kernels.options import Option

_UsageError: Any = typer.BadParameter.__base__  # Typer has a copy of Click since 0.26, and imported it before
RECIPE = "Recipe: "
"""Begins the titles of the panels of help that hold options of the recipe."""


def explained(option: "Option", default: Any) -> tuple[str, str]:
    """The help of an option of the recipe, and the panel that it stands in."""
    choices = f" One of {', '.join(option.choices)}." if option.choices else ""
    shown = "that of its kind" if default is None else default
    return f"{option.text}{choices} (default: the folder's, or {shown})", RECIPE + option.subject


class Group(TyperGroup):
    """All commands. What cannot be parsed gets one line on stderr, as other errors do."""

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run a command, and end with its exit code."""
        try:
            sys.exit(super().main(*args, **{**extra, "prog_name": "tinymlds", "standalone_mode": False}))
        except _UsageError as error:
            print(f"tinymlds: {_what_to_do(error)}", file=sys.stderr)
            sys.exit(error.exit_code)

    def format_help(self, *about: Any) -> None:
        """Print help, with the address that the metadata of the installed package gives for the documentation."""
        place = "README.md and docs/quickstart.md in the source of tinymlds"
        with contextlib.suppress(metadata.PackageNotFoundError):  # a checkout
            for link in metadata.metadata("tinymlds").get_all("Project-URL") or ():
                place = link.split(", ")[1]
        self.epilog = f"Documentation: {place}"
        super().format_help(*about)


class RecipeCommand(TyperCommand):
    """A command with the options of the recipe, which its --help leaves out and its --help-recipe shows."""

    def format_help(self, *about: Any, only: dict[str, tuple[str, str] | None] | None = None) -> None:
        """Print help on the options that are not of the recipe, or on those of it that `only` has.

        It gives another text and panel for each, or None.
        """
        every = self.params
        of_recipe = [each for each in every if (getattr(each, "rich_help_panel", "") or "").startswith(RECIPE)]
        if only is None:
            self.params = [each for each in every if each not in of_recipe]
        else:
            self.params = [copy.copy(each) for each in of_recipe if each.name in only]
            for each in self.params:
                if about_option := only[str(each.name)]:
                    each.help, each.rich_help_panel = about_option  # type: ignore[attr-defined]
        try:
            super().format_help(*about)
        finally:
            self.params = every


def _what_to_do(error: Any) -> str:
    context = error.ctx
    path = context.command_path if context else "tinymlds"
    if type(error).__name__ == "NoSuchOption":
        known = [name for each in context.command.params for name in each.opts]
        text = f"there is no option {error.option_name}{nearest(error.option_name, known)}"
    else:
        text = " ".join(error.format_message().split()).removesuffix(".")
    if not text.endswith("?"):  # then it names what was meant
        more = " and --help-recipe say" if isinstance(context and context.command, RecipeCommand) else " says"
        text += f"; `{path} --help`{more} what there is"
    return one_line(text[0].lower() + text[1:])
