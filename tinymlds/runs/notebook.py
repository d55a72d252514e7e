"""Progress of a run in a notebook, without being asked for."""

import sys
from collections.abc import Callable
from typing import Any

from tinymlds.runs.execution import Progress


def progress() -> Callable[[Progress], None]:
    """Return a function that shows every `Progress` below the cell of a notebook, and nothing elsewhere."""
    python: Any = sys.modules.get("IPython")  # loaded wherever a notebook runs
    shell = python and python.get_ipython()
    if not shell or not hasattr(shell, "kernel"):  # a shell in a terminal has none
        return lambda _progress: None
    shown = python.display.display(python.display.HTML(""), display_id=True)

    def show(state: Progress) -> None:
        bar = f'<progress max="{state.total}" value="{state.done}" style="vertical-align: middle"></progress>'
        shown.update(python.display.HTML(f"{bar} {_words(state)}"))

    return show


def _words(state: Progress) -> str:
    networks = f"{state.done:,} of {state.total:,} networks"
    if not state.workers:
        return f"{networks}, waiting for workers"
    if not state.made:
        what = "compiling the kernels, which are then kept (some 20 s)" if state.compiles else "starting"
        return f"{networks}, {what}"
    left = f"about {state.seconds_left:,.0f} s left" if state.done < state.total else f"{state.seconds:,.0f} s in all"
    return f"{networks}, {state.rate:.2f} networks/s, {left}"
