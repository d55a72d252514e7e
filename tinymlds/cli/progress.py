"""Progress on stderr: a bar with the time left on a terminal, a line every ten seconds elsewhere, nothing with --quiet."""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from tinymlds.cli.common import AT_END, quiet

if TYPE_CHECKING:
    from tinymlds.runs.execution import Progress as Run

_PLAIN_EVERY = 10.0


class Meter:
    """Shows how many of something are done; a smaller number than before, or another total, begins anew."""

    def __init__(self, what: str, each: bool = False) -> None:
        first, last = (TextColumn(text, markup=False) for text in ("{task.description}", "{task.fields[rest]}"))
        columns = first, BarColumn(), MofNCompleteColumn(), last, TimeElapsedColumn()
        self._bar = Progress(*columns, console=Console(stderr=True), redirect_stdout=False)
        self._each = each  # a line for each, where there is no terminal
        self._what, self._last, self._shown = what, (0, -1), time.monotonic()

    def __call__(self, done: int, total: int, rest: str = "", of: str = "") -> None:
        """Show that `done` of `total` are done, with `rest` or else the time left; `of` goes first."""
        if quiet():
            return
        bar, begins = self._bar, self._last[1] != total or done < self._last[0]
        self._last = done, total
        if begins:
            for old in bar.task_ids:
                bar.remove_task(old)
            bar.add_task("", total=total, rest="", completed=done)
        task = bar.tasks[-1]
        bar.update(TaskID(task.id), completed=done, description=of or self._what)
        left = task.time_remaining
        text = rest or (f"{duration(left)} left" if left else "")
        bar.update(TaskID(task.id), rest=text)
        if bar.console.is_terminal:
            if not bar.live.is_started:
                AT_END.callback(bar.stop)
                bar.start()
            if done == total:
                bar.stop()  # before something else is printed
        elif self._each or (rest and (begins or done == total)) or time.monotonic() - self._shown >= _PLAIN_EVERY:
            self._shown = time.monotonic()
            print(f"{of and f'{of}: '}{done}/{total} {self._what}{text and f', {text}'}", file=sys.stderr, flush=True)


def of_training() -> Callable[["Run"], None]:
    """Return a function to call with the progress of a run."""
    meter = Meter("networks")
    return lambda run: meter(run.done, run.total, _rate(run))


def _rate(run: "Run") -> str:
    if not run.workers:
        return "no workers there, waiting for them"
    if not run.made:
        return "compiling the kernels, which are then kept (some 20 s)" if run.compiles else "starting"
    left = f"{duration(run.seconds_left)} left" if run.done < run.total else f"{duration(run.seconds)} in all"
    return f"{run.rate:.2f} networks/s, {run.epochs} epochs, {left}"


def duration(seconds: float) -> str:
    """Seconds in words: 80 s, 12 min, 3.1 h, 5 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:,.0f} days"
