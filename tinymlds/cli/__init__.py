"""The command line: parse, call a plain function, print. Reports go to stdout, progress and errors to stderr.

Exit codes: 0 done; 1 a check failed or networks are missing; 2 usage; 130 and 143 interrupted by Ctrl-C and SIGTERM.
"""

from typing import Annotated

import typer

from tinymlds import __version__
from tinymlds.cli import looking, making
from tinymlds.cli.usage import Group, RecipeCommand

app = typer.Typer(
    cls=Group,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Say which version this is.")] = False
) -> None:
    """A factory for populations of small neural networks trained on exactly known tasks."""
    if version:
        print(f"tinymlds {__version__}")
    elif context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


app.command(cls=RecipeCommand)(making.train)
app.command(cls=RecipeCommand)(making.generate)
for _command in (
    looking.status,
    looking.verify,
    making.merge,
    making.package,
    looking.inspect,
    looking.report,
    looking.export,
    looking.analyze,
):
    app.command()(_command)


def main() -> None:
    """The command `tinymlds`."""
    app()
