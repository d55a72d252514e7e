"""Command lines of tinymlds as text, quoted so that they can be pasted into a shell."""

import contextlib
import shlex
from pathlib import Path
from typing import Any

from tinymlds.dataset.journal import Journal
from tinymlds.dataset.lock import RunLock
from tinymlds.spec import Recipe, Spec
from tinymlds.tasks import catalog, transducers


def command_line(*words: object) -> str:
    """Return the command `tinymlds WORDS`."""
    return shlex.join(["tinymlds", *map(str, words)])


def options(**values: Any) -> list[str]:
    """Return the words of options: None and False leave one out, True makes a flag, and a list repeats an option."""
    words = []
    for name, value in values.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(option)
        elif value is not None and value is not False:
            words += [word for each in (value if isinstance(value, list) else [value]) for word in (option, str(each))]
    return words


def train_command(spec: Spec, out: str | None = None) -> str:
    """Return the command that makes a dataset of this spec."""
    asked = {name: value for name, (_, value) in spec.recipe.options().items()}
    kinds = {name: asked[name] for name in ("architecture", "optimizer")}
    usual = Recipe.of(**kinds).options()
    recipe: dict[str, Any] = {name: None if value == usual[name][1] else value for name, value in asked.items()}
    recipe |= {name: value for name, value in kinds.items() if value != usual[name][0].default}
    checkpoints = ",".join(map(str, spec.checkpoints)) or None
    made_of = {"count": spec.tasks[0][1], "seed": spec.seed, **recipe, "checkpoints": checkpoints, "out": out}
    return command_line("train", *options(**_tasks(tuple(task for task, _ in spec.tasks)), **made_of))


def going_on(spec: Spec, folder: Path) -> tuple[str, ...]:
    """Return the words of the command that goes on with a folder, which has the recipe; () if none makes its tasks."""
    asked = _tasks(tuple(task for task, _ in spec.tasks))
    if len(asked.get("machine", [""])) > 1:
        return ()
    part = None if spec.part is None else "{}/{}".format(*spec.part)
    return ("train", *options(**asked, count=max(count for _, count in spec.tasks), part=part, out=folder))


def unfinished(folder: Path) -> str:
    """Say that a folder with a journal is not finished, and what to do.

    Raises:
        DatasetError: the journal is damaged.
    """
    if holder := RunLock.holder(folder):
        watch = command_line("status", folder, "--watch")
        return f"{folder} is not finished; {holder} works on it, and `{watch}` says when it is done"
    words: tuple[str, ...] = ()
    if (journal := Journal.open(folder)) is not None:
        with contextlib.closing(journal):
            words = going_on(journal.spec, folder)
    what = f"`{command_line(*words)}`" if words else "the command that started it"
    return f"{folder} is not finished; {what} goes on with it"


def _tasks(ids: tuple[str, ...]) -> dict[str, Any]:
    named = {tasks: name for name, tasks in catalog.DATASETS.items()}
    if ids in named:
        return {"dataset": named[ids]}
    if len(ids) == 1 and catalog.is_transducer(ids[0]):
        return {"only": int(ids[0].rsplit("_", 1)[1])}
    if ids == tuple(map(transducers.task_id, range(len(ids)))):
        return {"transducers": len(ids)}
    return {"machine": list(ids)}
