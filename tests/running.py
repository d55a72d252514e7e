"""How tests run the command line in a process of its own, what it says and leaves, and recipes of milliseconds."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

SMALL = {"train_sequences": 256, "validation_sequences": 64, "max_epochs": 3}
"""Networks of the default shape, so that compiled kernels are shared, and far from any threshold."""

EASY = {**SMALL, "threshold": 1e3, "max_epochs": 1}
"""Networks that are called complete after one epoch, and know nothing."""


def lines_of(path):
    """The objects of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def cli_command(*arguments, recipe=None):
    """The command line as a list; `recipe` fields become options."""
    options = [part for name, value in (recipe or {}).items() for part in (f"--{name.replace('_', '-')}", value)]
    return [sys.executable, "-m", "tinymlds", *map(str, [*arguments, *options])]


def run_cli(*arguments, recipe=None, **options):
    """Run it to the end; returns the CompletedProcess with text output."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), **options.pop("env", {})}
    command = cli_command(*arguments, recipe=recipe)
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, **options)


def refused(result, code, *words):
    """Assert that the command line refused: with this exit code, and one line that has these words."""
    assert result.returncode == code, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("tinymlds: ")
    for word in words:
        assert word in lines[0]


def contents(folder):
    """The sha256 of every file of a folder, by name."""
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in folder.rglob("*")
        if p.is_file()
    }


def command_on_path(folder):
    """An environment in which the command `tinymlds` is that of this checkout, installed or not."""
    folder.mkdir(exist_ok=True)
    script = folder / "tinymlds"
    body = 'from tinymlds.cli import main\n\nif __name__ == "__main__":\n    main()\n'  # workers import it
    script.write_text(f"#!{sys.executable}\n{body}")
    script.chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}


def begin(folder, spec):
    """A folder in which work has been begun, and nothing finished."""
    from tinymlds.dataset.journal import Journal

    folder.mkdir()
    Journal.create(folder, spec, {}, [], {}).close()
