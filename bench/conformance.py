"""Do networks compute their machine? Conformance tests by a random W-method, for a sample of a dataset's networks.

    python bench/conformance.py FOLDER [--sample 10] [--walks 8] [--json FILE]

A test is an access sequence to a state of the minimal machine, a random walk, and a sequence of the characterisation set,
which tells any two states apart (Chow 1978; the randomised form is that of AALpy, which computes the set here from the
graph that the dataset stores). A network passes if it gives all output lines right at every step of every test; it is
then equivalent to its machine as far as this suite can tell. Two suites: tests no longer than the training sequences,
and tests up to twice as long. Needs the extra `learning`.
"""

import argparse
import json
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
from aalpy import MealyMachine
from rich.console import Console
from rich.table import Table

import tinymlds
from tinymlds.dataset import reader, store
from tinymlds.spec import Setting
from tinymlds.tasks import catalog
from tinymlds.tasks.mealy import INPUT_LINES, OUTPUT_LINES, Mealy, lines
from tinymlds.training import backends

SEED = 0


def access_sequences(table: Mealy) -> list[list[int]]:
    """A shortest sequence of symbols to every state."""
    words: dict[int, list[int]] = {0: []}
    queue = deque([0])
    while queue:
        state = queue.popleft()
        for symbol, successor in enumerate(table.next_state[state].tolist()):
            if successor not in words:
                words[successor] = [*words[state], symbol]
                queue.append(successor)
    return [words[state] for state in range(table.states)]


def characterisation_set(dataset: tinymlds.Dataset, task: str, table: Mealy) -> list[list[int]]:
    """Sequences that tell any two states apart, by AALpy, from the stored graph."""
    text = reader.read_bytes(dataset.folder, store.graph_names(task)[1])
    setup = {state: {k: tuple(v) for k, v in row.items()} for state, row in json.loads(text).items()}
    machine = MealyMachine.from_state_setup(setup)
    assert machine.size == table.states
    return [[table.symbols.index(name) for name in word] for word in machine.compute_characterization_set()]


def suite(table: Mealy, telling: list[list[int]], walks: int, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Tests of at most `longest` steps: symbols uint8 [N, longest], and which of them belong to the test, bool."""
    generator = np.random.default_rng(SEED)
    tests = []
    for access in access_sequences(table):
        for word in telling:
            room = longest - len(access) - len(word)
            for _ in range(walks if room >= 0 else 0):
                walk = generator.integers(0, len(table.symbols), generator.integers(0, room + 1)).tolist()
                tests.append([*access, *walk, *word])
    symbols = np.zeros((len(tests), longest), np.uint8)
    inside = np.zeros(symbols.shape, bool)
    for row, test in enumerate(tests):
        symbols[row, : len(test)] = test
        inside[row, : len(test)] = True
    return symbols, inside


def examine(dataset: tinymlds.Dataset, task: str, sample: int, walks: int) -> dict[str, Any]:
    """How many of the first `sample` complete networks pass each suite."""
    recipe = dataset.spec.recipe
    table = catalog.load(Setting(task, 0, recipe)).table.minimise()
    telling = characterisation_set(dataset, task, table)
    rows = dataset.rows(task)[:sample]
    result: dict[str, Any] = {"task": task, "states": table.states, "networks": len(rows)}
    for name, longest in (("training length", recipe.steps), ("twice that", 2 * recipe.steps)):
        symbols, inside = suite(table, telling, walks, longest)
        x = lines(table.inputs[symbols], INPUT_LINES)
        wanted = lines(table.simulate(symbols), OUTPUT_LINES) > 0.5
        passed, right = 0, []
        for weights in dataset.weights(task)[: len(rows)]:
            outputs = backends.evaluator().outputs(dataset.architecture, weights, x)
            fine = (((outputs > 0.5) == wanted).all(axis=2) | ~inside).all(axis=1)
            passed += bool(fine.all())
            right.append(float(fine.mean()))
        middle = float(np.median(right)) if right else None
        result[name] = {"tests": len(symbols), "equivalent": passed, "tests_passed": middle}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sample", type=int, default=10, help="complete networks of each task")
    parser.add_argument("--walks", type=int, default=8, help="random walks for each state and telling sequence")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    dataset = tinymlds.open(options.folder)
    results = [examine(dataset, task, options.sample, options.walks) for task in dataset.tasks]
    table = Table("task", "states", "networks", "suite", "tests", "equivalent", "tests passed, median", box=None)
    for result in results:
        for name in ("training length", "twice that"):
            found = result[name]
            numbers = result["states"], result["networks"], name, found["tests"], found["equivalent"]
            middle = "-" if found["tests_passed"] is None else f"{found['tests_passed']:.2%}"
            table.add_row(result["task"], *map(str, numbers), middle)
    Console(width=140).print(table)
    if options.json:
        options.json.write_text(json.dumps({"folder": options.folder.name, "tasks": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
