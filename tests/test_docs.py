"""What README.md and docs/ show works: Python runs, commands print what is shown, and have the options that are shown.

Every page is a session in a folder of its own, from top to bottom.

- `python` blocks are executed; where they have `>>>`, what is shown must come out.
- `console` blocks are run by a shell: `$ command`, then what it prints to stdout. `…` stands for any lines, and a last line
  that names the next command may be left out. What differs from run to run (seconds, dates, sizes) is not compared.
- In the README a `bash` block with its output in a `text` block below, and a `text` block with prompts, are sessions too.
- Other `bash` blocks install things or take hours, so they are not run: their `tinymlds` commands are parsed.
"""

import importlib.util
import re
import shlex
import subprocess

import numpy as np
import pytest
import typer
from running import ROOT, SMALL, command_on_path
from sybil import Sybil
from sybil.parsers.myst import CodeBlockParser, PythonCodeBlockParser

import tinymlds
from tinymlds.cli import app

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

ELSEWHERE = {"loading.md": "test_loading.py"}
"""Pages whose examples another test runs."""

GIVEN = {key: {"machine": "xor", "count": 1, "out": "xor-1000"} for key in ("report.md", "symmetry.md")}
"""What a page takes to be there, made with a small recipe."""

SMALLER = {
    "README.md": [
        ("python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/tinymlds train", "tinymlds train"),
        ("count=1000, out", "count=18, out"),
        ('dataset="ds2", count=100,', 'dataset="ds2", count=1, train_sequences=1024, max_epochs=4,'),
    ]
}
"""What is replaced, so that a page takes seconds. Each stands in it once."""

VARIES = re.compile(r"in [\d.]+ s \([\d.]+ networks/s\)|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d|\d+\.\d [kMG]B")


def session_text(page):
    """The text of a page, with smaller numbers and all sessions in `console` blocks."""
    text = page.read_text()
    for old, new in SMALLER.get(page.name, []):
        assert text.count(old) == 1, f"{page.name} does not have {old!r} once; change SMALLER"
        text = text.replace(old, new)
    text = re.sub(r"```bash\n(.*)\n```\n\n```text\n", r"```console\n$ \1\n", text)
    return text.replace("```text\n$ ", "```console\n$ ")


def run_session(example):
    """Run the commands of a block and compare what they print; Sybil's evaluators return what is wrong."""
    for command, expected in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", example.parsed, re.MULTILINE):
        environment = example.namespace["environment"]
        done = subprocess.run(command, shell=True, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            return f"{command}\nends with {done.returncode}: {done.stderr}"
        if not matches(expected, done.stdout):
            return f"{command}\nprints\n{done.stdout}\nand not, as is shown,\n{expected}"
    return None


def matches(shown, printed):
    """Whether a command printed what a page shows, but for what varies and what is left out."""
    wanted, got = ([VARIES.sub("*", line.rstrip()) for line in text.strip("\n").splitlines()] for text in (shown, printed))
    pattern = "".join("(?:.*\n)*?" if line == "…" else re.escape(line) + "\n" for line in wanted)
    return re.fullmatch(pattern + "(?:next: .*\n)?", "".join(line + "\n" for line in got)) is not None


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in ELSEWHERE], ids=lambda page: page.name)
def test_what_a_page_shows_works(page, tmp_path, monkeypatch):
    text = session_text(page)
    if "tinymlds.torch" in text and importlib.util.find_spec("torch") is None:
        pytest.skip("it uses torch, which is not installed")
    if "tinymlds import report" in text and importlib.util.find_spec("plotly") is None:
        pytest.skip("it uses plotly, which is not installed")
    copy = tmp_path / page.name
    copy.write_text(text)
    parsers = [PythonCodeBlockParser(), CodeBlockParser("console", run_session)]
    document = Sybil(parsers=parsers, path=str(tmp_path)).parse(copy)
    document.namespace.update(__name__="__main__", environment=command_on_path(tmp_path / "bin"))
    document.namespace["x"] = np.zeros((2, 16, 9), np.float32)
    (tmp_path / "session").mkdir()
    monkeypatch.chdir(tmp_path / "session")
    if page.name in GIVEN:
        tinymlds.train(**GIVEN[page.name], workers=1, **SMALL)
    for example in document.examples():
        example.evaluate()


def shell_commands(page):
    """The arguments of every `tinymlds` command in the `bash` blocks of a page."""
    for block in re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            for command in line.split("&&"):
                words = shlex.split(command, comments=True)
                if words and words[0].split("/")[-1] == "tinymlds":
                    yield words[1:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_are_not_run_can_be_parsed(page):
    command = typer.main.get_command(app)
    for name, *arguments in shell_commands(page):
        if name.startswith("-"):
            assert any(name in option.opts for option in command.params), name
        else:
            command.commands[name].make_context(name, arguments)


def test_shown_output_is_compared():
    """The comparison can fail: with another number, a line too many, one too few, and nothing at all."""
    printed = "xor: 5 networks, 2.3 MB\ndigest 1f\n5 networks made in 4.1 s (1.22 networks/s)\nnext: tinymlds\n"
    assert matches(printed, printed)
    assert matches("xor: 5 networks, 9.9 MB\ndigest 1f\n5 networks made in 7.0 s (0.1 networks/s)", printed)
    assert matches("xor: 5 networks, 2.3 MB\n…", printed)
    assert matches("…\n5 networks made in 4.1 s (1.22 networks/s)", printed)
    for wrong in (printed.replace("1f", "2f"), printed + "more\n", "xor: 5 networks, 2.3 MB\n", "…\ndigest 1f\n", ""):
        assert not matches(wrong, printed)
