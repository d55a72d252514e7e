"""The command line: parse, call a plain function, print. Reports go to stdout, progress and errors to stderr.

Exit codes: 0 done; 1 a check failed or networks are missing; 2 usage; 130 and 143 interrupted by Ctrl-C and SIGTERM.
"""

import typer

from tinymlds.cli import looking, making

app = typer.Typer(
    help="A factory for populations of small neural networks trained on exactly known tasks.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for _command in (
    making.train,
    making.generate,
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
