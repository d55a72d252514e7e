"""Writing results: one file at the end, and until then a file beside it with the finished rows."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import IO, Any

from tinymlds.analysis.results import Row
from tinymlds.dataset import reader, store
from tinymlds.dataset.lock import RunLock
from tinymlds.errors import DatasetError, TinymldsError, UsageError, note_safe
from tinymlds.spec import canonical_json

ROWS, LOCK = ".rows", ".lock"
"""Suffixes of the file with finished rows, and of its lock; `store.commit` adds `.part`."""

_FIELDS = {entry.name for entry in fields(Row)}


def outside(place: Path, *folders: Path) -> Path:
    """Return a path to write to, if it is inside none of these datasets, which hold no other files; else UsageError."""
    try:
        inside = any(folder.is_dir() and place.resolve().is_relative_to(folder.resolve()) for folder in folders)
    except (OSError, RuntimeError) as error:
        raise UsageError(f"{place} is no path to write to: {error}") from error
    if inside:
        raise UsageError(f"{place} lies in the dataset, which holds no other files; choose a place outside of it")
    return place


@dataclass
class Rows:
    """The finished rows: their fields and seconds, by case and rung, also kept in a file if there is one."""

    place: Path | None = None
    """OUT.rows: a header in the first line, then a line of JSON for each group of rungs that share a fit."""
    fields: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    needed: bool = True
    """The results are not written yet."""
    _file: IO[bytes] | None = None

    def add(self, case: str, rows: dict[str, dict[str, Any]], seconds: float) -> None:
        """Add the fields of these rungs, and the seconds that they took."""
        line = canonical_json({"case": case, "rows": rows, "seconds": seconds})
        self._take(json.loads(line))  # as a file would give it back
        if self._file is not None:
            try:
                self._file.write(line.encode() + b"\n")
                self._file.flush()
            except OSError as error:
                raise TinymldsError(f"cannot write {self.place}: {error.strerror or error}") from error

    def close(self) -> None:
        """Close the file, and remove it if it has only the header, or the results are written."""
        if self.place is not None and self._file is not None:
            self._file.close()
            if not (self.fields and self.needed):
                store.remove(self.place)

    def _take(self, line: dict[str, Any]) -> None:
        for rung, found in line["rows"].items():
            if not found.keys() <= _FIELDS:
                raise ValueError("fields that no row has")
            self.fields[line["case"], rung] = dict(found)
            self.seconds[f"{line['case']}/{rung}"] = float(line["seconds"])


@contextlib.contextmanager
def open_rows(out: Path | None, header: dict[str, Any]) -> Iterator[Rows]:
    """Provide the rows that the same analysis has finished, to add more; without `out`, no file is used.

    The header is all that rows depend on: format, command, digests, versions.

    Raises:
        UsageError: `out` exists, its folder does not, another run uses it, or the rows beside it are damaged or of another
            analysis.
        TinymldsError: the file system refused.
    """
    if out is None:
        yield Rows()
        return
    if not out.parent.is_dir():
        raise UsageError(f"{out} cannot be written: {out.parent} is no folder")
    with RunLock(out, out.with_name(out.name + LOCK)):
        rows = Rows(out.with_name(out.name + ROWS))
        try:
            if out.exists():
                raise UsageError(f"{out} is there already; choose another file")
            rows._file = _opened(rows, canonical_json(header).encode())
        except OSError as error:
            raise TinymldsError(f"cannot write {out}: {error.strerror or error}") from error
        try:
            yield rows
        except BaseException as error:
            if rows.fields:
                note_safe(error, f"finished rungs are in {rows.place}")
            raise
        finally:
            rows.close()


def _opened(rows: Rows, header: bytes) -> IO[bytes]:
    """Open the file at its end, after reading its whole lines and cutting off a line that a killed run left unfinished."""
    place = rows.place
    if place is None or (place.exists() and not place.is_file()):
        raise UsageError(f"{place} is there and is no file; remove it, or choose another --out")
    file = place.open("r+b" if place.exists() else "x+b")
    try:
        *lines, half = file.read().split(b"\n")
        if lines[:1] not in ([], [header]) or not (lines or header.startswith(half)):
            raise UsageError(f"{place} has rows of another analysis; remove it, or choose another --out")
        for number, line in enumerate(lines[1:], 2):
            try:
                rows._take(reader.parse_json(line, f"line {number}"))
            except (DatasetError, KeyError, TypeError, ValueError, AttributeError) as error:
                raise UsageError(f"{place} is damaged in line {number}; remove it, or choose another --out") from error
        file.seek(sum(len(line) + 1 for line in lines))
        file.truncate()
        if not lines:
            file.write(header + b"\n")
            file.flush()
    except BaseException:
        file.close()
        raise
    return file
