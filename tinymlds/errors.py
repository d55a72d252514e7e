"""The errors that users see. The command line prints the message and exits with `code`; nothing else is a traceback."""

import contextlib
import difflib
from collections.abc import Iterable, Iterator

_LONGEST = 2000


class TinymldsError(Exception):
    """Something that the user can put right; the message says how, on one line."""

    code = 1

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class UsageError(TinymldsError):
    """The request makes no sense, or not for this folder."""

    code = 2


class DatasetError(TinymldsError):
    """A dataset folder is damaged, incomplete, or not a dataset."""


class AnalysisError(TinymldsError):
    """A file is not what `tinymlds analyze --out` writes."""


def one_line(message: str) -> str:
    """A message as it can be shown: what it quotes may come from a stranger, with line ends, escape codes or megabytes."""
    if len(message) > _LONGEST:
        message = f"{message[:_LONGEST]} ... ({len(message)} characters)"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)


def nearest(word: str, known: Iterable[str]) -> str:
    """ "; did you mean X?" for the known word that is most like this one; "" if none is like it."""
    by_case = {each.lower(): each for each in known}
    found = difflib.get_close_matches(word.lower(), by_case, 1, 0.7)
    return f"; did you mean {by_case[found[0]]}?" if found else ""


@contextlib.contextmanager
def refusing(what: str) -> Iterator[None]:
    """Where the file system refuses, say that tinymlds cannot do `what`, such as "write a.json", and why."""
    try:
        yield
    except OSError as error:
        raise TinymldsError(f"cannot {what}: {error.strerror or error}") from error


@contextlib.contextmanager
def going_on(safe: str) -> Iterator[None]:
    """Have an interruption (Ctrl-C, SIGTERM) carry a note of what is safe, and that the same call goes on from there."""
    try:
        yield
    except BaseException as error:
        note_safe(error, safe)
        raise


def note_safe(error: BaseException, safe: str) -> None:
    """The same for what has been caught; an error, which says itself what to do, gets no note."""
    if not isinstance(error, Exception):
        error.add_note(f"{safe}, and the same command goes on")
