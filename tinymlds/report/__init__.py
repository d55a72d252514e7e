"""Reports on a dataset: one HTML page that works offline, and the same figures as PNG or SVG for papers.

`report` gathers the content. `distributions`, `weightmap`, `looks`, `diagram` and `scores` compute the figures as
`charts`, which hold numbers and need no plotting library. `page` (with `traces`, for Plotly) and `paper` (for Matplotlib)
draw them.
"""

from collections.abc import Callable
from pathlib import Path

from tinymlds.analysis.writing import outside
from tinymlds.errors import UsageError, refusing
from tinymlds.report import report
from tinymlds.report.looks import LOOKS
from tinymlds.report.options import Options

FORMATS = ("png", "svg")

_MARK = b"<!doctype html>\n<!-- tinymlds report -->"
"""The first bytes of every page; a file that begins otherwise is never overwritten."""


def write_page(
    folder: str | Path,
    out: str | Path = "report.html",
    options: Options | None = None,
    progress: Callable[[int, int], None] = report.silent,
) -> Path:
    """Write a page about a dataset folder, finished or not; returns its path. It calls `progress` with (figures made, all).

    Raises:
        DatasetError: the folder is damaged or no dataset.
        AnalysisError: a file of `options.analyses` was not written by `tinymlds analyze --out`.
        UsageError: a library or a requested network is missing, or `out` exists and is no report.
        TinymldsError: the file system refused.
    """
    try:
        from tinymlds.report import page
    except ImportError as error:
        raise _missing(error) from error
    place = outside(Path(out), Path(folder))
    with refusing(f"write {place}"):
        if place.exists() and not _is_page(place):
            raise UsageError(f"{place} is there and is no report; choose another --out")
        text = page.render(report.read(Path(folder), options or Options(), progress))
        place.write_bytes(text.encode())
    return place


def write_figures(
    folder: str | Path,
    out: str | Path,
    form: str = "png",
    only: tuple[str, ...] = (),
    options: Options | None = None,
    progress: Callable[[int, int], None] = report.silent,
) -> list[Path]:
    """Write the figures of a page as files; returns their paths.

    Args:
        folder: a dataset folder.
        out: folder for the files; files of the same names are overwritten.
        form: "png" or "svg".
        only: names of figures; () means all.
        options: as for the page; figures of single networks show those in `options.networks`, or the first network on the
            page.
        progress: called with (figures made, all).

    Raises:
        DatasetError, AnalysisError, UsageError, TinymldsError: as `write_page` does.
    """
    if form not in FORMATS:
        raise UsageError(f"format must be one of {', '.join(FORMATS)}, not {form!r}")
    try:
        from tinymlds.report import paper
    except ImportError as error:
        raise _missing(error) from error
    place, asked = outside(Path(out), Path(folder)), options or Options()
    found = report.read(Path(folder), asked, progress)
    found.check_names(only)
    figures = found.figures(only)
    if not only or LOOKS.keys() & set(only):
        figures += report.look_figures(found, only)
    paths = [path for figure in figures for path in paper.save(figure, place, form)]
    if not paths:
        raise UsageError(f"{folder} has nothing that these figures could show")
    return paths


def _is_page(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_MARK)) == _MARK


def _missing(error: ImportError) -> UsageError:
    return UsageError(f"a report needs a library that is not installed ({error}); pip install 'tinymlds[report]'")
