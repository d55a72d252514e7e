"""How Sphinx builds these pages: `sphinx-build -W -n docs build/docs`, with the extra `docs`.

The reference of Python is written from the docstrings at each build, that of the command line by docs/commands.py. The
notebooks (pages with `file_format: mystnb`) are executed, in folders of their own; an error in one fails the build.
"""

import dataclasses
import re
from typing import Any

from sphinx.application import Sphinx

import tinymlds
from tinymlds.kernels.options import options_of

project = "tinymlds"
author = "the tinymlds authors"
version = release = tinymlds.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 600
exclude_patterns = ["_*"]
smartquotes = False  # options have two hyphens

html_theme = "furo"
html_title = f"tinymlds {release}"
html_show_sphinx = False

default_role = "code"  # docstrings are plain text with `backticks`
napoleon_google_docstring = True
napoleon_numpy_docstring = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True, "exclude-members": "__init__, __new__"}
nitpick_ignore_regex = [  # other projects' names: nothing is fetched to build these pages
    ("py:.*", r"(numpy|np|npt|torch|nn|pathlib|collections|concurrent|typing)\..*"),
    (
        "py:.*",
        r"(Any|ArrayLike|Floats|Tensors|Generator|Math|Carried|Rate|ABC|NDArray|Path|Counter|Callable|Iterator|ndarray|dtype|u?int[0-9]+|float[0-9]+|optional)",
    ),
]


def keep_colons(_app: Sphinx, what: str, _name: str, _of: Any, _options: object, lines: list[str]) -> None:
    """Have Napoleon take the docstring of an attribute as text: without a type in front it reads "a: b" as type a."""
    if what in ("attribute", "data", "property") and lines:
        lines[0] = f": {lines[0]}"


def name_fields(_app: Sphinx, _what: str, _name: str, of: Any, _options: object, lines: list[str]) -> None:
    """Append to the docstring of the recipe its fields, whose texts are those of the command line's options."""
    if dataclasses.is_dataclass(of):
        lines += [f"* **{each.name}** (default `{each.default!r}`): {each.text}" for each in options_of(of)]


def shorten_arrays(_app: Sphinx, *about: Any) -> tuple[str, str] | None:
    """Write arrays in signatures as their annotations do, and defaults so that Sphinx can parse them."""
    signature, returns = about[-2:]
    if signature is None:
        return None
    array = r"~?numpy\.ndarray\[~?tuple\[~?typing\.Any, \.\.\.\], ~?numpy\.dtype\[~?numpy\.(\w+)\]\]"
    like = r"~?numpy\._typing\._array_like\._Buffer \|.*?\]\]?(?= ?[,)=])"
    texts = ((text or "").replace("<factory>", "...") for text in (signature, returns))  # of dataclasses
    return tuple(re.sub(like, "ArrayLike", re.sub(array, r"NDArray[\1]", text)) for text in texts)


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", keep_colons, priority=400)  # Napoleon has 500
    app.connect("autodoc-process-docstring", name_fields)
    app.connect("autodoc-process-signature", shorten_arrays)
