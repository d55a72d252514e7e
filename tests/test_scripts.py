"""Training from a script, from stdin and from a prompt, in processes of their own, with and without the guard."""

import os
import subprocess
import sys

import pytest
from running import ROOT, SMALL

import tinymlds

CALL = f"tinymlds.train('xor', 4, 'made', workers=2, **{SMALL})"
UNGUARDED = f"import tinymlds\n{CALL}\n"
GUARDED = f"import tinymlds\nif __name__ == '__main__':\n    {CALL}\n"
GUARD = 'if __name__ == "__main__":'


def run_python(folder, *arguments, **options):
    """Run Python in a folder to the end."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False, **options
    )


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        (["-c", UNGUARDED], ""),
        (["-"], UNGUARDED),
        (["-"], GUARDED),
        (["-i"], UNGUARDED),
        (["-q", "-i", "-c", ""], UNGUARDED),
    ],
    ids=["command", "stdin", "stdin with the guard", "interactive", "prompt"],
)
def test_what_is_no_file_needs_no_guard(tmp_path, arguments, given):
    done = run_python(tmp_path, *arguments, input=given)
    assert done.returncode == 0, done.stderr
    assert len(tinymlds.open(tmp_path / "made")) == 4


def test_a_script_with_the_guard_trains(tmp_path):
    (tmp_path / "script.py").write_text(GUARDED)
    done = run_python(tmp_path, "script.py")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(tinymlds.open(tmp_path / "made")) == 4


@pytest.mark.parametrize(
    "body",
    [
        UNGUARDED,
        f"{UNGUARDED}print(tinymlds.open('made'))\n",
        f"import tinymlds\ndef main():\n    {CALL}\n\nmain()\n",
        f"import tinymlds\ntinymlds.train('xor', 1, 'first', workers=1, **{SMALL})\n{CALL}\n",
        f"import tinymlds\ntinymlds.train('xor', 1, 'first', workers=1, **{SMALL})\n"
        "tinymlds.verify('first')\ntinymlds.train('xor', 3, 'first', workers=2)\n",
        "import tinymlds\ntinymlds.verify('sealed', retrain=4, workers=2)\n",
    ],
    ids=["plain", "and reads", "in a function", "after another one", "the same folder", "verify"],
)
def test_a_forgotten_guard_is_said_once(tmp_path, body):
    (tmp_path / "script.py").write_text(body)
    tinymlds.train("xor", 4, tmp_path / "sealed", workers=1, **SMALL)
    done = run_python(tmp_path, "script.py")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count(GUARD) == 1
    assert done.stderr.count("Traceback") == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith("tinymlds.errors.UsageError: training starts processes")


def test_in_processes_of_others_it_is_an_error(tmp_path):
    """A pool of the user's own, whose processes import a script that trains."""
    pool = "from multiprocessing import get_context\n"
    main = "if __name__ == '__main__':\n    p = get_context('spawn').Process(target=print)\n    p.start()\n    p.join()\n"
    body = f"{pool}import tinymlds\n{main}else:\n    tinymlds.train('xor', 1, 'made', workers=1)\n"
    (tmp_path / "script.py").write_text(body)
    done = run_python(tmp_path, "script.py")
    assert done.stderr.splitlines()[-1].startswith("tinymlds.errors.UsageError: training starts processes")
    assert not (tmp_path / "made").exists()
