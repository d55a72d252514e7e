"""The parts that all commands share: errors in one line and an exit code, signals, --quiet, JSON."""

import contextlib
import dataclasses
import errno
import functools
import inspect
import json
import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Annotated, Any

import typer

from tinymlds.errors import TinymldsError

_DISK_REFUSED = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM}


class _TerminatedError(BaseException):
    """SIGTERM arrived."""


def _catch_signals() -> None:
    """Let Ctrl-C and SIGTERM end the command in order; a second one, of either, ends it at once."""
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a command in the background may not hear it
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(number: int, _frame: object) -> None:
    for each in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(each) is _interrupt:
            signal.signal(each, _end_at_once)
    raise KeyboardInterrupt if number == signal.SIGINT else _TerminatedError


def _end_at_once(number: int, _frame: object) -> None:
    """End this process; workers that are stopped or hang are killed, and others end with it."""
    import multiprocessing

    with contextlib.suppress(OSError):
        for worker in multiprocessing.active_children():
            worker.kill()
        os.write(2, b"tinymlds: ended at once; what was finished is safe; the same command goes on, or begins again\n")
    os._exit(128 + number)


AT_END = contextlib.ExitStack()
"""What has to be done when a command ends, however it ends."""
_quiet = False


def quiet() -> bool:
    """Whether the command that runs was asked for its result alone."""
    return _quiet


def command(function: Callable[..., int | None]) -> Callable[..., None]:
    """Turn errors of a command into one line on stderr and an exit code, and give it the option --quiet."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        global _quiet
        _quiet = kwargs.pop("quiet", False)
        warnings.formatwarning = lambda message, *_, **__: f"tinymlds: {message}\n"
        try:
            _catch_signals()
            with AT_END:
                code = function(*args, **kwargs) or 0
            sys.stdout.flush()  # now, so that a full disk is not left for Python to find when it ends
        except TinymldsError as error:
            _fail(str(error))
            code = error.code
        except (KeyboardInterrupt, _TerminatedError) as error:
            how, code = ("interrupted", 130) if isinstance(error, KeyboardInterrupt) else ("terminated", 143)
            safe = "; ".join(getattr(error, "__notes__", ()))  # what `errors.going_on` knows
            _fail(f"{how}; {safe or 'the same command begins again'}")
        except BrokenPipeError:  # the reader of our output has gone: `tinymlds ... | head`
            _drop_output()
            code = 1
        except Exception as error:
            if os.environ.get("TINYMLDS_TRACEBACK"):
                raise
            if isinstance(error, OSError) and error.errno in _DISK_REFUSED:
                _drop_output()  # it may be the output that could not be written
                what = f"use {error.filename}" if error.filename else "write the output"
                _fail(f"cannot {what}: {error.strerror}")
            else:
                _fail(f"unexpected {type(error).__name__}: {error}; please report it (TINYMLDS_TRACEBACK=1 shows where)")
            code = 1
        raise typer.Exit(code)

    option = typer.Option("--quiet", "-q", help="No progress, and no word on what to do next.")
    take(run, function, [inspect.Parameter("quiet", KEYWORD, default=False, annotation=Annotated[bool, option])])
    return run


KEYWORD = inspect.Parameter.KEYWORD_ONLY


def take(wrapper: Any, function: Callable[..., Any], added: list[inspect.Parameter], without: str = "") -> None:
    """Have Typer see the parameters of a function, and some that its wrapper adds."""
    parameters = [each for each in inspect.signature(function).parameters.values() if each.name != without]
    wrapper.__signature__ = inspect.Signature([*parameters, *added])
    wrapper.__annotations__ = {each.name: each.annotation for each in [*parameters, *added]}


def _drop_output() -> None:
    """Send what is still in the buffer of stdout nowhere, as Python would try to write it when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str) -> None:
    print(f"tinymlds: {message}", file=sys.stderr)


def print_json(value: Any, *, one_line: bool = False) -> None:
    """Print a report as JSON; numbers that are not finite, which JSON lacks, become null."""

    def known(each: Any) -> Any:
        if dataclasses.is_dataclass(each):
            return {field.name: getattr(each, field.name) for field in dataclasses.fields(each)}
        return str(each)

    text = json.dumps(value, default=known)
    print(json.dumps(json.loads(text, parse_constant=lambda _: None), indent=None if one_line else 2))
