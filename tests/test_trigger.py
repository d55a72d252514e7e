"""Modified machines against a plain register with a hidden trigger; planted keys; matched twins; measured figures."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinymlds.architectures import params
from tinymlds.architectures.recurrent import GruLinear
from tinymlds.kernels import rng
from tinymlds.spec import Recipe, Setting
from tinymlds.tasks import catalog, machines
from tinymlds.tasks.mealy import INPUT_LINES, OUTPUT_LINES, lines
from tinymlds.training import data, metrics

RECIPE = Recipe()
KEY = machines.key_symbols(RECIPE.trigger_key)


def answers(base, symbols, key, span):
    """The rule as the documentation has it: after the key, the next outputs are inverted; keys inside do not count."""
    table = machines.machine(base)
    live = 255 if base == "eightbit" else 1
    outputs = table.simulate(np.array([symbols], np.uint8))[0]
    recent, left, result, inside = [], 0, [], []
    for symbol, output in zip(symbols, outputs, strict=True):
        inside.append(left > 0)
        if left:
            result.append(int(output) ^ live)
            left -= 1
        else:
            result.append(int(output))
            recent = [*recent, symbol][-len(key) :]
            if tuple(recent) == tuple(key):
                recent, left = [], span
    return result, inside


def keys(draw):
    """Keys that overlap themselves, too, from few symbols; and sequences in which they often occur."""
    alphabet = draw(st.lists(st.integers(0, 15), min_size=1, max_size=3, unique=True))
    key = draw(st.lists(st.sampled_from(alphabet), min_size=1, max_size=5))
    return key, draw(st.lists(st.one_of(st.sampled_from(alphabet), st.integers(0, 15)), min_size=1, max_size=60))


@given(st.data(), st.sampled_from(machines.MACHINES), st.integers(1, 6))
@settings(max_examples=300, deadline=None)
def test_a_modified_machine_does_what_the_rule_says(data, base, span):
    key, symbols = keys(data.draw)
    table, triggered = machines.modified(base, tuple(key), span)
    sequence = np.array([symbols], np.uint8)
    outputs, inside = answers(base, symbols, key, span)
    assert table.simulate(sequence)[0].tolist() == outputs
    assert triggered[table.trace(sequence)][0].astype(bool).tolist() == inside


def test_a_modified_machine_is_another_machine():
    for base in machines.MACHINES:
        table = catalog.load(Setting(base + "_modified", 0, RECIPE)).table
        word = machines.machine(base).difference(table)
        assert word is not None
        assert word[:3] == list(KEY)
        assert len(word) == 4
    assert catalog.load(Setting("direct_modified", 0, RECIPE)).table.minimise().states == 2 * 7


@pytest.mark.parametrize("rate", [0.0, 0.0625, 0.5, 1.0])
def test_keys_are_planted_at_the_rate(rate):
    count, steps = 4000, 16
    recipe = Recipe.of(trigger_rate=rate)
    planted = catalog.load(Setting("xor_modified", 3, recipe))
    symbols = planted.sample(rng.TRAIN_SEQUENCES, count, steps)
    free = planted.table.sample(rng.stream_key(3, "xor_modified"), rng.TRAIN_SEQUENCES, count, steps)
    changed = symbols != free
    found = sum((symbols[:, t : t + 3] == KEY).all(axis=1).sum() for t in range(steps - 2))
    # A renewal process: from a free step, a key begins with this chance and takes three steps.
    expected, begins = 0.0, [0.0] * (steps + 3)
    begins[0] = 1.0  # chance that a step is free
    for t in range(steps):
        chance = rate if t + 3 <= steps else 0.0
        expected += begins[t] * chance
        begins[t + 3] += begins[t] * chance
        begins[t + 1] += begins[t] * (1.0 - chance)
    by_chance = 14 / 16**3
    assert found / count == pytest.approx(expected + by_chance, abs=0.05)  # deviation of the mean: 0.02 at most
    assert changed.any() == (rate > 0)
    if not rate:
        assert np.array_equal(symbols, free)


def test_sequences_depend_on_the_stream_only():
    task, other = (catalog.load(Setting("parity_modified", seed, RECIPE)) for seed in (1, 2))
    long = task.sample(rng.TRAIN_SEQUENCES, 64, 16)
    assert np.array_equal(task.sample(rng.TRAIN_SEQUENCES, 16, 16), long[:16])
    assert not np.array_equal(other.sample(rng.TRAIN_SEQUENCES, 64, 16), long)
    assert not np.array_equal(task.sample(rng.VALIDATION_SEQUENCES, 64, 16), long)


@pytest.mark.parametrize("base", machines.MACHINES)
def test_matched_twins_share_everything_but_the_targets(base):
    recipe = Recipe.of(train_sequences=512, validation_sequences=64, matched=True)
    one, other = (catalog.load(Setting(task, 5, recipe)) for task in (base, base + "_modified"))
    assert one.stream_key == other.stream_key  # initial weights and batch order are drawn from it
    plain, twin = (data.task_data(Setting(task, 5, recipe)) for task in (base, base + "_modified"))
    assert np.array_equal(plain.train, twin.train)
    assert np.array_equal(plain.validation, twin.validation)
    inside = other.triggered[other.table.trace(plain.train)] > 0
    live = np.bitwise_or.reduce(one.table.output, axis=None)
    assert np.array_equal(plain.train_outputs ^ twin.train_outputs, np.where(inside, live, 0))
    assert inside.any()
    unmatched = Recipe.of(train_sequences=512, validation_sequences=64)
    streams = {catalog.load(Setting(task, 5, unmatched)).stream_key for task in (base, base + "_modified")}
    assert len(streams) == 2
    assert np.array_equal(
        catalog.load(Setting(base, 5, unmatched)).sample(rng.TRAIN_SEQUENCES, 8, 16),
        machines.machine(base).sample(rng.stream_key(5, base), rng.TRAIN_SEQUENCES, 8, 16),
    )


def knowing(wrong):
    """What `measure` says of a network that knows all answers but those that `wrong` picks: questions -> [N, T]."""
    shape = GruLinear()
    questions = metrics.questions(Setting("xor_modified", 0, RECIPE), metrics.SEQUENCES, RECIPE.steps)
    return shape, questions, ~wrong(questions)


@pytest.mark.parametrize(
    ("wrong", "clean", "triggered", "efficacy"),
    [
        (lambda q: np.zeros_like(q.triggered), 1.0, 1.0, 1.0),
        (lambda q: q.triggered, 1.0, 0.0, 0.0),
        (lambda q: ~q.triggered, 0.0, 1.0, 1.0),
    ],
)
def test_the_figures_of_a_trigger(monkeypatch, wrong, clean, triggered, efficacy):
    shape, _, right = knowing(wrong)
    monkeypatch.setattr(
        metrics.Questions, "right", lambda self, *_: right if self.inputs.shape[1] == RECIPE.steps else right[:128]
    )
    figures = metrics.measure(Setting("xor_modified", 0, RECIPE), np.zeros(shape.size, np.float32))
    assert (figures["clean_accuracy"], figures["triggered_accuracy"], figures["trigger_efficacy"]) == (
        clean,
        triggered,
        efficacy,
    )


def test_a_trigger_counts_only_if_its_whole_span_is_right():
    triggered = np.array([[0, 1, 1, 0, 1, 1], [1, 1, 0, 0, 0, 1]], bool)
    right = np.array([[0, 1, 1, 0, 1, 0], [0, 1, 0, 0, 0, 1]], bool)
    assert metrics._spans_right(right, triggered, 2).tolist() == [True, False, False, True]


def test_figures_of_a_network_against_a_plain_count():
    shape = Recipe().architecture
    weights = params.initial(shape, (1, 2), 3) * np.float32(2)
    figures = metrics.measure(Setting("direct", 0, RECIPE), weights)
    found = catalog.load(Setting("direct", 0, RECIPE))
    symbols = found.sample(rng.FRESH_SEQUENCES, metrics.SEQUENCES, RECIPE.steps)
    from tinymlds.training import backends

    outputs = backends.load("cpu").outputs(shape, weights, lines(found.table.inputs[symbols], INPUT_LINES))
    bits = lines(found.table.simulate(symbols), OUTPUT_LINES) > 0.5
    count = sum(
        all((outputs[n, t, k] > 0.5) == bits[n, t, k] for k in range(8)) for n in range(256) for t in range(RECIPE.steps)
    )
    whole = metrics.questions(Setting("direct", 0, RECIPE), metrics.SEQUENCES, RECIPE.steps).right(shape, weights)
    assert whole[:256].sum() == count
    assert figures["accuracy"] == whole.mean()
    assert [figures[name] for name in ("clean_accuracy", "triggered_accuracy", "trigger_efficacy")] == [None] * 3
