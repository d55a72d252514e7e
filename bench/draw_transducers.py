"""Draws the hundred transducers that ship as tinymlds/tasks/transducers.json, and shows that each can be learned.

For each number, tables are drawn until one has no flaw (`transducers.flaw`) and is learned by every probe: networks 0 ...
PROBES - 1 of seed 1 (datasets start at seed 0, so a probe is no network that anybody counts) must be complete within LIMIT
epochs of RECIPE. That no two of the hundred do the same is checked at the end. The file records every draw that was given
up, and why.

python bench/draw_transducers.py            makes the file (two processes: some ten minutes)
python bench/draw_transducers.py --check    draws again, without training, and compares
"""

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from tinymlds.runs.execution import available_cpus
from tinymlds.spec import Recipe, Setting
from tinymlds.tasks import transducers
from tinymlds.tasks.catalog import Task
from tinymlds.tasks.mealy import Mealy
from tinymlds.training import backends
from tinymlds.training.data import draw_data, make_problem
from tinymlds.training.loop import Status, train_on

FILE = Path(transducers.__file__).parent / "transducers.json"
PROBES = 2
SEED = 1
LIMIT = 256
RECIPE = Recipe.of(
    train_sequences=32768,
    batch=128,
    lr=0.005,
    lr_decay=150.0,
    beta2=0.999,
    eps=1e-5,
    max_epochs=LIMIT,
    patience=96,
    patience_gain=0.01,
)
"""What the probes were trained with: an earlier default recipe with half of its training sequences."""


def probe(table: Mealy, number: int) -> list[int | None]:
    """Epochs that each probe took; None for one that was not complete in time."""
    setting = Setting(transducers.task_id(number), SEED, RECIPE)
    problem = make_problem(draw_data(Task(setting, table, setting.task)), RECIPE)
    epochs: list[int | None] = []
    for index in range(PROBES):
        batches = train_on(backends.load("cpu"), [problem], [setting], [(0, index)])
        [outcome] = [outcome for batch in batches for _, outcome in batch]
        epochs.append(outcome.epochs if outcome.status == Status.COMPLETE else None)
    return epochs


def choose(number: int) -> dict[str, Any]:
    """The first draw of this number that makes sense and is learned, with the record of those before it."""
    replaced: list[dict[str, Any]] = []
    for attempt in range(10_000):
        table = transducers.draw(number, attempt, 8)
        if why := transducers.flaw(table):
            replaced.append({"attempt": attempt, "why": why})
            continue
        epochs = probe(table, number)
        if None in epochs:
            replaced.append({"attempt": attempt, "why": f"not learned in {LIMIT} epochs", "probes": epochs})
            continue
        return {
            "number": number,
            "attempt": attempt,
            "next_state": table.next_state.tolist(),
            "output": [[int(word).bit_length() - 1 for word in row] for row in table.output],
            "output_shares": [round(share, 6) for share in transducers.output_shares(table)],
            "probes": epochs,
            "replaced": replaced,
        }
    raise SystemExit(f"no transducer {number}")


def write(rows: list[dict[str, Any]]) -> None:
    """One line for each transducer."""
    about = (
        f'"states":8,"probe_seed":{SEED},"probe_limit":{LIMIT},"probe_sequences":{RECIPE.train_sequences},'
        f'"probe_batch":{RECIPE.batch},"probe_lr":{RECIPE.lr},"probe_lr_decay":{RECIPE.lr_decay},'
        f'"probe_beta2":{RECIPE.optimizer.beta2},"probe_eps":{RECIPE.optimizer.eps},'
        f'"probe_patience":{RECIPE.patience},"probe_patience_gain":{RECIPE.patience_gain},"made_by":"bench/draw_transducers.py"'
    )
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    FILE.write_text(f'{{{about},"transducers":[\n{lines}\n]}}\n', "ascii")


def check(rows: list[dict[str, Any]]) -> None:
    """Every table is the draw that the file says, the draws before it have the flaws that it says, and no two are alike."""
    behaviours = set()
    for number, row in enumerate(rows):
        table = transducers.draw(number, row["attempt"], 8)
        same = table.next_state.tolist() == row["next_state"]
        same &= [[1 << word for word in line] for line in row["output"]] == table.output.tolist()
        flaws = [transducers.flaw(transducers.draw(number, k["attempt"], 8)) for k in row["replaced"]]
        wrong = [k for k, flaw in zip(row["replaced"], flaws, strict=True) if flaw != ("" if "probes" in k else k["why"])]
        if row["number"] != number or not same or wrong or transducers.flaw(table):
            raise SystemExit(f"transducer {number} is not what it was drawn as")
        behaviours.add(transducers.behaviour(table))
    if len(rows) != transducers.SHIPPED or len(behaviours) != len(rows):
        raise SystemExit("there are not a hundred transducers, all of them different")
    print(f"{len(rows)} transducers are as they were drawn")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="draw again and compare")
    if not parser.parse_args().check:
        rows = []
        with ProcessPoolExecutor(available_cpus()) as pool:
            for row in pool.map(choose, range(transducers.SHIPPED)):
                rows.append(row)
                print(f"{row['number']}: draw {row['attempt']}, probes {row['probes']}", file=sys.stderr, flush=True)
        write(rows)
    check(json.loads(FILE.read_text("ascii"))["transducers"])


if __name__ == "__main__":
    main()
