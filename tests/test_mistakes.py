"""What people type wrongly: each gets one line on stderr that says what to do, the right exit code, and harms nothing.

A row is a command line as it is typed in a folder with a finished dataset `xor` of six networks, one of them not finished
(`begun`), a folder with other things (`thesis`), an empty one, and files; its exit code; and words that the line must have.
"""

import subprocess
import sys

import pytest
from running import ROOT, SMALL, begin, contents
from typer.testing import CliRunner

import tinymlds
from tinymlds.cli import app
from tinymlds.spec import Recipe, Spec, recipe_with

NAMES = [
    ("trian xor --count 5", 2, "Did you mean 'train'"),
    ("xor --count 5", 2, "no such command 'xor'"),
    ("train xorr --count 5", 2, "no task or dataset 'xorr'; did you mean xor?"),
    ("train ParityMachin --count 5", 2, "did you mean ParityMachine?"),
    ("train ds4 --count 5", 2, "ds1, ds2, ds3"),
    ("train --dataset xor --count 5", 2, "no dataset 'xor'; there are ds1"),
    ("train transducer_10000 --count 5", 2, "transducer_000 to transducer_9999"),
    ("train --count 5", 2, "name a task (such as xor) or a dataset"),
    ("train xor --machine parity --count 5", 2, "name the task once"),
    ("train xor --dataset ds1 --count 5", 2, "and not both"),
    ("train ds1 --transducers 5 --count 5", 2, "transducers and only are for the dataset ds3"),
    ("train ds1 --modified --count 5", 2, "the dataset ds2 holds the modified twins"),
    ("inspect xor parity", 2, "no task 'parity'; it has xor"),
    ("inspect xor xor 6", 2, "networks 0 to 5"),
    ("analyze xor --experiment which-machin", 2, "did you mean which-machine?"),
    ("report xor --figures new --only epoch", 2, "there are grid, epochs, losses"),
]

OPTIONS = [
    ("train xor", 2, "like --count 20"),
    ("train xor --cuont 5", 2, "no option --cuont; did you mean --count?"),
    ("train xor --count 5 --learning-rate 0.1", 2, "`tinymlds train --help` and --help-recipe say what there is"),
    ("train xor --count 5 --hiden 8", 2, "did you mean --hidden?"),
    ("train xor parity --count 5", 2, "unexpected extra argument"),
    ("verify xor --workers", 2, "option '--workers' requires an argument"),
    ("train xor --count 5 --workers 0", 2, "workers must be at least 1"),
    ("train xor --count 5 --backend gpu", 2, "'gpu'", "cpu, cuda"),
    ("train xor --count 5 --executor slurm", 2, "processes, threads, dask"),
    ("train xor --count 5 --executor dask", 2, "--scheduler tcp://HOST:PORT"),
    ("train xor --count 5 --optimizer adamm", 2, "must be one of adam"),
    ("train xor --count 5 --matched yes", 2, "unexpected extra argument"),
    ("train xor --count 5 --trigger-key 'set 9'", 2, 'like "set 7, clear 7, set 7"'),
    ("train xor --count 5 --recipe typo.toml", 2, "no option hiden", "did you mean hidden?"),
    ("train xor --count 5 --recipe notes.txt", 2, "is no TOML", "--show-recipe"),
    ("train xor --count 5 --recipe nowhere.toml", 1, "cannot read nowhere.toml"),
    ("report xor --only epochs", 2, "give a folder for them with --figures"),
    ("report xor --network 17", 2, "TASK:INDEX, like xor:17"),
    ("report xor --figures new --format pdf", 2, "png, svg"),
    ("inspect xor --name ds1", 2, "is not a package"),
    ("package xor --out new --license 'CC BY 4.0'", 2, "did you mean CC-BY-4.0?"),
    ("package xor --out new --license GPL", 2, "usual are CC-BY-4.0"),
]

UNITS = [
    ("train xor --count ten", 2, "'--count'", "valid integer"),
    ("train xor --count 10k", 2, "'--count'", "valid integer"),
    ("train xor --count 0", 2, "between 1 and"),
    ("train xor --count 5 --lr 0,003", 2, "'--lr'", "valid number"),
    ("train xor --count 5 --batch 100", 2, "multiple of 16"),
    ("train xor --count 5 --hidden 10", 2, "multiple of 4"),
    ("train xor --count 5 --checkpoints 1-8", 2, "epochs like 0,1,2,4,8"),
    ("train xor --count 5 --part 2of8", 2, "written K/N, like 2/8"),
    ("train xor --count 5 --part 9/8", 2, "1/N ... N/N"),
    ("package xor --out new --subsets 1k", 2, "counts like 100,500"),
    ("package xor --out new --date 1.12.2026", 2, "a day like 2026-11-25"),
    ("status xor --watch --every 5m", 2, "'--every'", "valid number"),
    ("analyze xor --experiment predict-epochs --seeds 1", 2, "seeds must be between 2 and 1000"),
]

FOLDERS = [
    ("verify", 2, "missing argument"),
    ("inspect nowhere", 1, "let `tinymlds train --out nowhere` make one"),
    ("inspect empty", 1, "not a tinymlds dataset"),
    ("train xor --count 8 --out thesis", 2, "is not empty and not a tinymlds dataset; choose another --out"),
    ("train xor --count 8 --out notes.txt", 2, "is a file; choose another --out"),
    ("train parity --count 8 --out xor", 2, "tasks xor, not parity; choose another --out"),
    ("train xor --count 3", 2, "it can grow, but not shrink to 3"),
    ("train xor --count 8 --lr 0.1", 2, "made with lr 0.003, not 0.1; choose another --out"),
    ("inspect begun", 1, "`tinymlds train --machine parity --count 3 --out begun` goes on with it"),
    ("verify begun", 1, "`tinymlds train --machine parity --count 3 --out begun` goes on with it"),
    ("analyze begun --experiment which-machine", 1, "goes on with it"),
    ("package begun --out new", 2, "goes on with it"),
    ("package xor --out xor", 2, "choose another --out"),
    ("package xor --out thesis", 2, "choose another"),
    ("export xor xor 0 --out net.pt", 2, ".safetensors"),
    ("report xor --out notes.txt", 2, "is no report; choose another --out"),
    ("merge xor --out thesis", 2, "choose another --out"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("place")
    tinymlds.train("xor", 6, place / "xor", workers=1, **SMALL)
    for name in ("thesis", "empty"):
        (place / name).mkdir()
    begin(place / "begun", Spec((("parity", 3),), 0, recipe_with(Recipe(), SMALL)))
    (place / "thesis" / "chapter.txt").write_text("mine")
    (place / "notes.txt").write_text("mine")
    (place / "typo.toml").write_text("hiden = 8\n")
    return place


EXTRAS = {"analyze": ("sklearn",), "report": ("plotly", "jinja2", "matplotlib")}
"""Modules without which a command says so first."""


@pytest.mark.parametrize("row", [*NAMES, *OPTIONS, *UNITS, *FOLDERS], ids=lambda row: row[0])
def test_a_mistake_gets_one_line_that_says_what_to_do(row, place, monkeypatch):
    line, code, *words = row
    for module in EXTRAS.get(line.split()[0], ()):
        pytest.importorskip(module)
    monkeypatch.chdir(place)
    before = contents(place)
    done = CliRunner().invoke(app, line)
    assert done.exit_code == code, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("tinymlds: ")
    assert done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr
    assert contents(place) == before


@pytest.mark.parametrize(
    ("module", "line", "extra"),
    [
        ("plotly", "report xor --out new.html", "report"),
        ("matplotlib", "report xor --figures new", "report"),
        ("sklearn", "analyze xor --experiment predict-epochs", "analysis"),
        ("distributed", "train xor --count 9 --executor dask --scheduler tcp://localhost:1", "dask"),
        ("numba_cuda", "train xor --count 9 --backend cuda", "cuda"),
    ],
)
def test_an_extra_that_is_not_installed_is_named(module, line, extra, place):
    program = f"import sys; sys.modules[{module!r}] = None; from tinymlds.cli import main; main()"
    command = [sys.executable, "-c", program, *line.split()]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"pip install 'tinymlds[{extra}]'" in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


def test_a_package_without_pyarrow_says_so(place, tmp_path):
    program = "import sys; sys.modules['pyarrow'] = None; from tinymlds.cli import main; main()"
    command = [sys.executable, "-c", program, "package", str(place / "xor"), "--out", str(tmp_path / "new")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "without manifest.parquet, as pyarrow is not installed: pip install 'tinymlds[publish]'" in done.stdout
    assert not (tmp_path / "new" / "manifest.parquet").exists()
