"""Machines as Mealy tables, against a register in plain Python; minimising and comparing tables."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinymlds.architectures.recurrent import GruLinear
from tinymlds.errors import UsageError
from tinymlds.kernels import rng
from tinymlds.tasks import catalog, machines
from tinymlds.tasks.mealy import INPUT_LINES, OUTPUT_LINES, Mealy

ANSWERS = {
    "eightbit": lambda bits: bits,
    "direct": lambda bits: [bits[0]],
    "invert": lambda bits: [1 - bits[0]],
    "xor": lambda bits: [bits[0] ^ bits[1]],
    "parity": lambda bits: [sum(bits) % 2],
}


def test_a_network_has_a_line_for_each_of_a_table():
    assert (GruLinear().inputs, GruLinear().outputs) == (INPUT_LINES, OUTPUT_LINES)


@pytest.mark.parametrize("task", machines.MACHINES)
def test_a_machine_answers_as_its_register(task):
    table = machines.machine(task)
    symbols = table.sample((1, 2), rng.FRESH_SEQUENCES, 50, 40)
    for sequence, outputs in zip(symbols, table.simulate(symbols), strict=True):
        register = [0] * 8
        for symbol, output in zip(sequence, outputs, strict=True):
            word, number = table.symbols[symbol].split()
            register[int(number)] = int(word == "set")
            assert [output >> line & 1 for line in range(8)] == (ANSWERS[task](register) + [0] * 8)[:8]
            lines = [int(table.inputs[symbol]) >> line & 1 for line in range(9)]
            assert lines == [int(line == int(number)) for line in range(8)] + [int(word == "set")]


@pytest.mark.parametrize(("task", "states"), [("eightbit", 256), ("direct", 2), ("invert", 2), ("xor", 4), ("parity", 256)])
def test_minimise(task, states):
    table = machines.machine(task)
    small = table.minimise()
    assert small.states == states
    assert table.difference(small) is None


def test_names():
    assert [catalog.task_id(alias) for alias in machines.ALIASES.values()] == list(machines.MACHINES)
    for task in (*catalog.DATASETS["ds1"], *catalog.DATASETS["ds2"], *catalog.DATASETS["ds3"]):
        assert catalog.task_id(catalog.alias(task)) == catalog.task_id(task) == task
    assert catalog.task_id("ParityModified") == catalog.task_id("PARITY_modified") == "parity_modified"
    assert catalog.task_id("transducer_7") == "transducer_007"
    for name in ("XORR", "xor_modified_modified", "transducer_x", "transducer_10000", ""):
        with pytest.raises(UsageError, match="there is no task"):
            catalog.task_id(name)


def random_table(draw, states, symbols):
    shape = (states, symbols)
    return Mealy(
        tuple(map(str, range(symbols))),
        np.arange(symbols, dtype=np.uint16),
        np.array(
            draw(st.lists(st.integers(0, states - 1), min_size=states * symbols, max_size=states * symbols)), np.uint16
        ).reshape(shape),
        np.array(draw(st.lists(st.integers(0, 2), min_size=states * symbols, max_size=states * symbols)), np.uint8).reshape(
            shape
        ),
    )


@given(st.data(), st.integers(1, 7), st.integers(1, 3))
@settings(max_examples=200, deadline=None)
def test_minimised_tables_are_equivalent_and_cannot_be_minimised(data, states, symbols):
    table = random_table(data.draw, states, symbols)
    small = table.minimise()
    assert small.states <= states
    assert table.difference(small) is None
    again = small.minimise()
    assert again.sha256() == small.sha256()


@given(st.data(), st.integers(1, 6))
@settings(max_examples=200, deadline=None)
def test_a_difference_is_a_shortest_word_that_tells_two_tables_apart(data, states):
    one, other = random_table(data.draw, states, 2), random_table(data.draw, states, 2)
    word = one.difference(other)
    words = [np.array([w], np.uint8) for n in range(1, 7) for w in np.ndindex(*[2] * n)]
    telling = [w.shape[1] for w in words if one.simulate(w)[0, -1] != other.simulate(w)[0, -1]]
    if word is None:
        assert telling == []
    else:
        symbols = np.array([word], np.uint8)
        assert one.simulate(symbols)[0, -1] != other.simulate(symbols)[0, -1]
        assert not telling or min(telling) == len(word)


def test_symbols_are_uniform_and_depend_on_the_stream_only():
    table = machines.machine("xor")
    symbols = table.sample((5, 6), rng.TRAIN_SEQUENCES, 4096, 16)
    counts = np.bincount(symbols.ravel(), minlength=16)
    expected = symbols.size / 16
    assert ((counts - expected) ** 2 / expected).sum() < 45  # chi-square, 15 degrees of freedom: above with p = 8e-5
    assert np.array_equal(table.sample((5, 6), rng.TRAIN_SEQUENCES, 100, 16), symbols[:100])
    assert not np.array_equal(table.sample((5, 6), rng.VALIDATION_SEQUENCES, 100, 16), symbols[:100])


@pytest.mark.parametrize(
    "change", [{"next_state": [[2, 0], [0, 0]]}, {"output": [[0, 0]]}, {"inputs": [1, 512]}, {"symbols": ("a",)}]
)
def test_a_table_that_makes_no_sense_is_refused(change):
    parts = {"symbols": ("a", "b"), "inputs": [1, 2], "next_state": [[0, 1], [1, 0]], "output": [[0, 1], [1, 0]], **change}
    with pytest.raises(ValueError, match="Mealy table"):
        Mealy(
            parts["symbols"],
            *(np.array(parts[k], t) for k, t in (("inputs", "u2"), ("next_state", "u2"), ("output", "u1"))),
        )
