"""The stored ground truth, read by a tool that knows nothing of us: AALpy loads both forms and answers as we do."""

import json

import numpy as np
import pytest
from aalpy import MealyMachine
from aalpy.utils import load_automaton_from_file

from tinymlds.dataset.schema import graph_files
from tinymlds.spec import Recipe, Setting
from tinymlds.tasks import catalog

RECIPE = Recipe()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("task", ["xor", "direct_modified", "xor_modified", "transducer_000", "transducer_042"])
def test_aalpy_answers_as_the_table(task, tmp_path):
    found = catalog.load(Setting(task, 0, RECIPE))
    (dot_name, dot), (_, setup) = graph_files(found).items()
    path = tmp_path / dot_name.replace("/", "-")
    path.write_bytes(dot)
    from_dot = load_automaton_from_file(str(path), "mealy")
    states = {s: {k: tuple(v) for k, v in row.items()} for s, row in json.loads(setup).items()}
    from_json = MealyMachine.from_state_setup(states)
    symbols = np.random.default_rng(1).integers(0, len(found.table.symbols), (20, 60), np.uint8)
    if found.key:
        symbols[:, 10:13] = found.key  # so that the trigger fires
    for sequence, outputs in zip(symbols, found.table.simulate(symbols), strict=True):
        bits = ["y" + "".join(str(output >> line & 1) for line in range(8)) for output in outputs]
        names = [found.table.symbols[symbol] for symbol in sequence]
        for machine in (from_dot, from_json):
            machine.reset_to_initial()
            assert [machine.step(name) for name in names] == bits
    assert from_dot.size == from_json.size == found.table.minimise().states
