"""What README.md and docs/ show works: Python runs as scripts, commands print what is shown, options exist; it is short.

Every page is a session from top to bottom, in a folder that is empty at first.

- A `python` block is saved as a script and run by a Python of its own. One that imports tinymlds begins a script; one that
  does not goes on with the script above it, and is run together with that. Where a block has `>>>`, what is shown must come
  out; where a `text` block follows it, that is what it prints.
- `console` blocks are run by a shell: `$ command`, then what it prints to stdout. `…` stands for any lines, and a last line
  that names the next command may be left out. What differs from run to run (seconds, dates, sizes) is not compared.
- In the README a `bash` block with its output in a `text` block below, and a `text` block with prompts, are sessions too.
- Other `bash` blocks install things or take hours, so they are not run: their `tinymlds` commands are parsed.
- `py` blocks need what no test has, such as a cluster, and are not run. `{code-cell}` blocks are run when pages are built.
"""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from running import ROOT, SMALL, command_on_path

import tinymlds
from tinymlds.cli import app

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(python|console|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
IMPORTS = re.compile(r"^(>>> )?(import|from) .*\btinymlds\b", re.MULTILINE)
EXTRAS = ("torch", "sklearn", "matplotlib", "plotly", "pandas")
"""Packages that a block may need, and that need not be installed."""
NEEDS = {
    "torch": r"tinymlds\.torch|^\s*(import|from) torch|graph/",
    "sklearn": r"^\s*(import|from) sklearn|tinymlds\.analyze",
    "plotly": r"tinymlds import report|report\.write_page",
    "pandas": r"to_pandas",
}
"""How a block shows that it needs one that it does not import."""

GIVEN = {
    "report.md": {"machine": "xor", "count": 1, "out": "xor-1000", **SMALL},
    "symmetry.md": {"machine": "xor", "count": 1, "out": "xor-1000", **SMALL},
    "loading.md": {"dataset": "ds1", "count": 20, "out": "ds1", "checkpoints": (0, 1), **SMALL, "threshold": 1.0},
}
"""What a page takes to be there, made with a small recipe."""

SMALLER = {
    "README.md": [("python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/tinymlds train", "tinymlds train")],
}
"""What is replaced, so that a page takes seconds. Each stands in it once."""

SESSION = """
import doctest
_session = doctest.DocTestParser().get_doctest({text!r}, globals(), "page", None, 0)
assert not doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(_session, clear_globs=False).failed
"""
"""How a block with prompts becomes a part of a script."""

VARIES = re.compile(r"in [\d.]+ s \([\d.]+ networks/s\)|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d|\d+\.\d [kMG]B")


def session_text(page):
    """The text of a page, with smaller numbers and all sessions in `console` blocks."""
    text = page.read_text()
    for old, new in SMALLER.get(page.name, []):
        assert text.count(old) == 1, f"{page.name} does not have {old!r} once; change SMALLER"
        text = text.replace(old, new)
    text = re.sub(r"```bash\n(.*)\n```\n\n```text\n", r"```console\n$ \1\n", text)
    return text.replace("```text\n$ ", "```console\n$ ")


def steps_of(page):
    """What a page runs, in order: kind ("script" or "console"), the text, and what a script prints, if that is shown."""
    steps, script, end = [], "", 0
    for fence in FENCE.finditer(session_text(page)):
        kind, block = fence.groups()
        if kind == "python":
            part = SESSION.format(text=block) if block.startswith(">>> ") else block
            script = part if IMPORTS.search(block) else f"{script}\n{part}"
            steps.append(("script", script, None))
        elif kind == "console":
            steps.append((kind, block, None))
        elif steps and steps[-1][0] == "script" and fence.start() == end + 2:
            steps[-1] = ("script", script, block)
        end = fence.end()
    return steps


def run_script(text, shown, name, environment):
    """Save a script and run it; it has to end well, and print what the page shows."""
    Path(name).write_text(text)
    done = subprocess.run([sys.executable, name], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, f"{text}\nends with {done.returncode}: {done.stdout}{done.stderr}"
    assert shown is None or matches(shown, done.stdout), f"{text}\nprints\n{done.stdout}\nand not, as is shown,\n{shown}"


def run_session(text, environment):
    """Run the commands of a block and compare what they print."""
    for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
        done = subprocess.run(command, shell=True, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, f"{command}\nends with {done.returncode}: {done.stderr}"
        assert matches(shown, done.stdout), f"{command}\nprints\n{done.stdout}\nand not, as is shown,\n{shown}"


def matches(shown, printed):
    """Whether a command printed what a page shows, but for what varies and what is left out."""
    wanted, got = ([VARIES.sub("*", line.rstrip()) for line in text.strip("\n").splitlines()] for text in (shown, printed))
    pattern = "".join("(?:.*\n)*?" if line == "…" else re.escape(line) + "\n" for line in wanted)
    return re.fullmatch(pattern + "(?:next: .*\n)?", "".join(line + "\n" for line in got)) is not None


def missing_extras(text):
    """Names of packages that a script needs and that are not installed."""
    needed = (name for name in EXTRAS if re.search(NEEDS.get(name, rf"^\s*(import|from) {name}\b"), text, re.MULTILINE))
    return [name for name in needed if importlib.util.find_spec(name) is None]


@pytest.mark.parametrize("page", [page for page in PAGES if steps_of(page)], ids=lambda page: page.name)
def test_what_a_page_shows_works(page, tmp_path, monkeypatch):
    environment = command_on_path(tmp_path / "bin") | {"MPLBACKEND": "agg"}
    folder = tmp_path / "session"
    folder.mkdir()
    monkeypatch.chdir(folder)
    if page.name in GIVEN:
        tinymlds.train(**GIVEN[page.name], workers=1)
    left_out = {}
    for number, (kind, text, shown) in enumerate(steps_of(page)):
        if kind == "console":
            run_session(text, environment)
        elif names := missing_extras(text):
            left_out.update(dict.fromkeys(names))
        else:
            run_script(text, shown, f"{page.stem}_{number}.py", environment)
    if left_out:
        pytest.skip(f"what needs {', '.join(left_out)} was left out, as that is not installed")


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


README = ROOT / "README.md"
LONG = ("loading.md", "publishing.md", "report.md", "symmetry.md")
"""Pages that still have sentences of more than 30 words."""


def test_the_readme_is_short():
    """What it may have: lines, characters in a line, words in all and before the first command, the picture on top."""
    text = README.read_text()
    lines = text.splitlines()
    assert len(lines) <= 250
    assert max(map(len, lines)) <= 120
    assert len(text.split()) <= 1800
    assert len(text[: text.index("```bash")].split()) <= 100
    assert next(number for number, line in enumerate(lines) if line.startswith("![")) < 30


def test_links_to_files_and_headings_lead_somewhere():
    """Sphinx checks those of the pages; the README is read where there is no Sphinx."""
    for name, heading in re.findall(r"\](?:\(|: )(?!http)([^)#\s]*)(?:#([^)\s]*))?", README.read_text()):
        target = ROOT / name if name else README
        assert target.exists(), name
        if heading:
            titles = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, heading


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in LONG], ids=lambda page: page.name)
def test_sentences_are_short(page):
    """No sentence of running text has more than 30 words."""
    long = [sentence for sentence in sentences(page.read_text()) if len(sentence.split()) > 30]
    assert not long, f"{len(long)}: " + "\n".join(long)


def sentences(text):
    """The sentences of a page's paragraphs and lists, without code, tables and formulas."""
    text = re.sub(r"^(```+|:::+).*?^\1", "\n", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^(\||    |#|!\[).*$|^---\n.*?^---\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"`[^`]+`", "code", re.sub(r"\]\([^)]*\)", "]", text))
    for paragraph in re.split(r"\n\s*\n|^\s*(?:[-*]|\d+\.) ", text, flags=re.MULTILINE):
        yield from re.split(r"(?<=[.?!])[\s*)]+(?=\S)", " ".join(paragraph.split()))
