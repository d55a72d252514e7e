"""What a shell and a terminal get from the command line beside its work: completion, JSON alone, and what to do next."""

import contextlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib

import numpy as np
import pytest
import typer
from running import ROOT, SMALL, begin, cli_command, command_on_path, run_cli
from typer.testing import CliRunner

import tinymlds
from tinymlds import errors
from tinymlds.cli import app, common, completion, progress
from tinymlds.spec import Recipe, Spec, recipe_with
from tinymlds.tasks import catalog, machines, transducers


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sealed") / "xor"
    tinymlds.train("xor", 2, folder, workers=1, **SMALL)
    return folder


# ------------------------------------------------------------------ completion


def offered(shell, line, place, tmp_path):
    """What the command answers to the completion script of a shell for a line, the last word of which is incomplete."""
    words = {
        "bash": {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)},
        "zsh": {"_TYPER_COMPLETE_ARGS": line},
        "fish": {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
        "powershell": {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_WORD_TO_COMPLETE": line.split(" ")[-1]},
    }[shell]
    environment = command_on_path(tmp_path / "bin") | {"_TINYMLDS_COMPLETE": f"complete_{shell}", **words}
    done = subprocess.run(["tinymlds"], capture_output=True, text=True, env=environment, cwd=place, check=False)
    assert done.stderr == ""
    return re.findall("[a-z0-9_]+", done.stdout)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_every_shell_is_offered_tasks(shell, folder, tmp_path):
    for line, names in (
        ("tinymlds train --machine par", ["parity", "parity_modified"]),
        ("tinymlds generate --dataset d", ["ds1", "ds2", "ds3"]),
        (f"tinymlds inspect {folder.name} x", ["xor"]),
    ):
        answer = offered(shell, line, folder.parent, tmp_path)
        assert [word for word in answer if word in {*names, "eightbit", "cpu"}] == names, answer


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_a_real_bash_completes(folder, tmp_path):
    """The script of --show-completion is read by bash, and its function called as bash calls it on TAB."""
    script = """
        source <(tinymlds --show-completion)
        complete -p tinymlds
        COMP_WORDS=(tinymlds inspect "$1" ''); COMP_CWORD=3
        _tinymlds_completion tinymlds; echo "task: ${COMPREPLY[*]}"
        COMP_WORDS=(tinymlds train --backend cu); COMP_CWORD=3
        _tinymlds_completion tinymlds; echo "backend: ${COMPREPLY[*]}"
        COMP_WORDS=(tinymlds ver); COMP_CWORD=1
        _tinymlds_completion tinymlds; echo "command: ${COMPREPLY[*]}"
    """
    environment = command_on_path(tmp_path / "bin")
    command = ["bash", "--norc", "-c", script, "bash", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines() == [
        "complete -o default -F _tinymlds_completion tinymlds",
        "task: xor",
        "backend: cuda",
        "command: verify",
    ]


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_completion_is_installed_for_the_shell_in_use(tmp_path):
    environment = command_on_path(tmp_path / "bin") | {"HOME": str(tmp_path)}
    command = ["bash", "--norc", "-c", "tinymlds --install-completion; true"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert "bash completion installed" in done.stdout, done
    assert "tinymlds" in (tmp_path / ".bashrc").read_text()


def test_completion_knows_the_tasks_and_loads_nothing_heavy():
    assert completion.MACHINES == machines.MACHINES
    assert transducers.SHIPPED == completion.SHIPPED_TRANSDUCERS
    assert all(catalog.choose(name)[0] == name for name in [*completion.machines(""), *completion.machines("t")])
    assert completion.datasets("") == list(catalog.DATASETS)
    code = "import sys, tinymlds.cli; assert not {'numba', 'numpy', 'tinymlds.cli.console'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_completion_survives_a_strangers_folder(tmp_path):
    context = type("Context", (), {"params": {"folder": tmp_path}})
    description = tmp_path / "dataset.json"
    for text in ("", "[]", "{}", '{"tasks": 1}', '{"tasks": [{"task": 1}]}', "[" * 100_000, " " * (1 << 20) + "{}"):
        description.write_text(text)
        assert completion.tasks_of_folder(context, "") == []
    description.write_text('{"tasks": [{"task": "x\\u001b[2J"}, {"task": "$(id)"}, {"task": "xor"}]}')
    assert completion.tasks_of_folder(context, "") == ["xor"]
    description.rename(tmp_path / "real.json")
    description.symlink_to("real.json")
    assert completion.tasks_of_folder(context, "") == []
    description.unlink()
    os.mkfifo(description)
    assert completion.tasks_of_folder(context, "") == []


# ------------------------------------------------------------------ JSON


def constant(name):
    raise AssertionError(f"{name} is no JSON")


def printed(*arguments, code=0, **options):
    """The single JSON value that a command prints."""
    done = run_cli(*arguments, "--json", **options)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout, parse_constant=constant)


def test_json_alone_on_stdout(folder, tmp_path):
    made = printed("train", "--machine", "xor", "--count", 2, "--out", folder)
    assert (made["networks"], made["run"]["networks"]) == (2, 0)
    sequences = printed("generate", "--machine", "xor", "--out", tmp_path / "s", recipe=SMALL)
    assert {file["name"] for file in sequences["files"]} >= {"dataset.json", "SHA256SUMS", "data/xor.safetensors"}
    assert printed("train", "--machine", "xor", "--count", 2, "--out", folder, "--dry-run")["networks"] == 0
    assert printed("status", folder)["digest"] == made["digest"] == printed("verify", folder)["digest"]
    assert printed("inspect", folder)["digest"] == made["digest"]
    assert printed("inspect", folder, "xor")["task"] == "xor"
    assert printed("inspect", folder, "xor", 1)["row"]["index"] == 1


def test_watched_status_is_a_line_of_json_each_time(tmp_path):
    spec = Spec((("xor", 1),), 0, recipe_with(Recipe(), SMALL))
    begin(tmp_path / "xor", spec)
    command = cli_command("status", tmp_path / "xor", "--watch", "--every", 0.1, "--json")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as watching:
        lines = [watching.stdout.readline() for _ in range(3)]
        watching.terminate()
    assert [json.loads(line)["counts"] for line in lines] == [{"xor": {}}] * 3


@pytest.mark.parametrize(
    ("safe", "said"),
    [
        ("", "interrupted; the same command begins again"),
        ("finished networks are safe", "interrupted; finished networks are safe, and the same command goes on"),
    ],
)
def test_an_interruption_says_what_is_safe(safe, said, capsys, monkeypatch):
    monkeypatch.setattr(common, "_catch_signals", lambda: None)  # those of this process stay as they are

    @common.command
    def interrupted():
        with errors.going_on(safe) if safe else contextlib.nullcontext():
            raise KeyboardInterrupt

    with pytest.raises(typer.Exit) as ended:
        interrupted()
    assert ended.value.exit_code == 130
    assert capsys.readouterr().err == f"tinymlds: {said}\n"


def test_json_has_no_numbers_that_json_lacks(capsys):
    common.print_json({"a": [float("nan"), 1.5], "b": (float("inf"), np.float64("-inf"))})
    assert json.loads(capsys.readouterr().out, parse_constant=constant) == {"a": [None, 1.5], "b": [None, None]}


# ------------------------------------------------------------------ help


def test_help_loses_no_word():
    """What looks like markup to the library that prints it, an extra in brackets, would not be shown."""
    for name, command in typer.main.get_command(app).commands.items():
        pages = [[name, "--help"], *([[name, "--help-recipe"]] if name in ("train", "generate") else [])]
        shown = [word for page in pages for word in CliRunner().invoke(app, page, env={"COLUMNS": "300"}).stdout.split()]
        written = [command.help, *(option.help or "" for option in command.params)]
        assert set(" ".join(written).split()) <= set(shown), name


@pytest.mark.parametrize("name", ["train", "generate"])
def test_help_of_a_command_with_a_recipe_fits_two_screens(name):
    shown = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "100"}).stdout
    assert len(shown.splitlines()) <= 80
    assert "--help-recipe" in shown
    assert "--hidden" not in shown
    recipe = CliRunner().invoke(app, [name, "--help-recipe", "--optimizer", "adam"], env={"COLUMNS": "100"}).stdout
    assert "--hidden" in recipe
    assert "--dry-run" not in recipe


def test_help_says_where_the_documentation_is():
    shown = " ".join(CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).stdout.split())
    assert "Documentation: README.md and docs/quickstart.md" in shown
    assert (ROOT / "docs" / "quickstart.md").exists()


@pytest.mark.parametrize("command", [["-m", "tinymlds"], [str(ROOT / "cli.py")]])
def test_the_version_is_said(command):
    done = subprocess.run([sys.executable, *command, "--version"], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == f"tinymlds {tinymlds.__version__}\n"


def test_the_reference_of_the_command_line_is_that_of_the_program():
    place = importlib.util.spec_from_file_location("commands", ROOT / "docs" / "commands.py")
    commands = importlib.util.module_from_spec(place)
    place.loader.exec_module(commands)
    assert commands.PAGE.read_text() == commands.page(), "write it again: python docs/commands.py"


# ------------------------------------------------------------------ progress


@pytest.mark.skipif(os.name == "nt", reason="a pseudo-terminal")
@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["verify", "xor", "--retrain", "1"], "networks .* 1/1"),
        (["package", "xor", "--out", "package"], "networks audited .* 2/2"),
        (["report", "xor", "--out", "new.html"], r"figures .* (\d+)/\1"),
    ],
    ids=lambda words: words[0],
)
def test_a_terminal_gets_a_bar_with_a_count_and_stdout_the_result_alone(words, count, folder, tmp_path):
    import pty

    if words[0] == "report":
        pytest.importorskip("plotly", reason="plotly is not installed")
    shutil.copytree(folder, tmp_path / "xor")
    ours, theirs = pty.openpty()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100"}
    command = cli_command(*words, "--json")
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        drawn = b""
        with contextlib.suppress(OSError):  # how a terminal ends
            while data := os.read(ours, 1 << 16):
                drawn += data
        result = json.loads(process.stdout.read())
    os.close(ours)
    assert result
    assert re.search(count, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", drawn.decode()))


def test_elsewhere_a_line_now_and_then_has_the_count_and_the_time_left(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_PLAIN_EVERY", 0.05)
    meter = progress.Meter("networks")
    for done in range(4):
        time.sleep(0.06)
        meter(done, 4, of="xor")
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "xor: 0/4 networks"
    assert re.fullmatch(r"xor: 3/4 networks, \d+ s left", told[-1])
    meter(0, 9)  # of something else
    assert capsys.readouterr().err == ""


# ------------------------------------------------------------------ what is made


def test_a_task_or_a_dataset_is_an_argument_in_any_case(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = [word for name, value in SMALL.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    for words, name in ((["XOR"], "xor"), (["simplexormachine"], "xor"), (["--machine", "Parity"], "parity")):
        done = CliRunner().invoke(app, ["train", *words, "--count", "1", "--workers", "1", *small])
        assert done.exit_code == 0, done.stderr
        assert tinymlds.open(name).tasks == (name,)
    done = CliRunner().invoke(app, ["generate", "DS1", *small])
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "ds1-sequences" / "data" / "invert.safetensors").exists()
    assert catalog.choose("ds2") == catalog.choose(dataset="ds2")


def test_a_recipe_that_is_shown_can_be_read_back(tmp_path, folder):
    """Each option with a value of its own, also those that texts, truth values and small numbers spell otherwise."""
    changed = {
        "hidden": 8,
        "eps": 1e-7,
        "lr_decay": 0.0,
        "matched": True,
        "trigger_key": "set 1, clear 2",
        "initial": "shared",
    }
    changed |= {"max_epochs": 7, "edits": 2, "family": 3, "threshold": 0.001}
    wanted = recipe_with(Recipe(), changed)
    file = tmp_path / "recipe.toml"

    def shown(*arguments):
        done = CliRunner().invoke(app, ["train", *arguments, "--show-recipe"])
        assert done.exit_code == 0, done.stderr
        return done.stdout

    file.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in changed.items()))
    file.write_text(shown("--recipe", str(file)))
    assert Recipe.of(**tomllib.loads(file.read_text())) == wanted
    assert Recipe.of(**tomllib.loads(shown("--recipe", str(file), "--hidden", "16"))) == recipe_with(wanted, {"hidden": 16})
    assert Recipe.of(**tomllib.loads(shown("--out", str(folder)))) == tinymlds.open(folder).spec.recipe
    small = tmp_path / "small.toml"
    small.write_text("train_sequences = 256\nvalidation_sequences = 64\nmax_epochs = 9\n")
    again = ["train", "xor", "--count", "2", "--recipe", str(small), "--max-epochs", "3", "--out", str(tmp_path / "xor")]
    assert CliRunner().invoke(app, [*again, "--workers", "1"]).exit_code == 0
    assert tinymlds.open(tmp_path / "xor").digest == tinymlds.open(folder).digest


def test_a_dry_run_compares_with_the_free_disk(tmp_path):
    dry = ("train", "xor", "--workers", 1, "--dry-run", "--out", tmp_path / "new", "--count")
    assert "too little; make room" in run_cli(*dry, 2_000_000_000).stdout
    shown = run_cli(*dry, 10).stdout
    assert re.search(
        r"^size [\d.]+ MB; .* a journal of [\d.]+ kB\nfree on this disk [\d.]+ [MGT]B$", shown, re.MULTILINE
    ), shown
