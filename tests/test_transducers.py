"""Transducers: what is asked of them, the hundred that ship, families with edits."""

import json
from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinymlds.errors import UsageError
from tinymlds.spec import Recipe, Setting
from tinymlds.tasks import catalog, transducers
from tinymlds.tasks.mealy import Mealy

SHIPPED = [transducers.transducer(number) for number in range(transducers.SHIPPED)]


def reached(next_state, start):
    """States that can be reached from one of them, by breadth-first search."""
    seen, queue = {start}, deque([start])
    while queue:
        for state in next_state[queue.popleft()]:
            if state not in seen:
                seen.add(int(state))
                queue.append(int(state))
    return seen


@pytest.mark.parametrize("number", range(transducers.SHIPPED))
def test_a_shipped_transducer_makes_a_good_task(number):
    table = SHIPPED[number]
    assert table.states == 8
    assert all(len(reached(table.next_state, state)) == 8 for state in range(8)), "strongly connected"
    assert table.minimise().sha256() == table.sha256(), "minimal, and numbered breadth first"
    assert set(table.output.ravel()) <= {1, 2, 4, 8}
    symbols = np.random.default_rng(0).integers(0, 4, (20_000, 16), np.uint8)
    shares = [(table.simulate(symbols) == 1 << k).mean() for k in range(4)]
    assert shares == pytest.approx(transducers.output_shares(table), abs=0.005)  # 320,000 draws: 5 deviations of 0.0009
    assert min(shares) > 0.145
    assert max(shares) < 0.355


def test_no_two_shipped_transducers_do_the_same():
    for one in range(transducers.SHIPPED):
        for other in range(one):
            word = SHIPPED[one].difference(SHIPPED[other])
            assert word is not None
            symbols = np.array([word], np.uint8)
            assert SHIPPED[one].simulate(symbols)[0, -1] != SHIPPED[other].simulate(symbols)[0, -1]


def test_the_file_tells_how_they_were_drawn():
    rows = json.loads(transducers.shipped_text())["transducers"]
    assert [row["number"] for row in rows] == list(range(transducers.SHIPPED))
    for row, table in zip(rows, SHIPPED, strict=True):
        assert transducers.draw(row["number"], row["attempt"], 8).sha256() == table.sha256()
        assert [k["attempt"] for k in row["replaced"]] == list(range(row["attempt"]))
        for given_up in row["replaced"]:
            flaw = transducers.flaw(transducers.draw(row["number"], given_up["attempt"], 8))
            assert flaw == ("" if "probes" in given_up else given_up["why"])


@pytest.mark.parametrize(
    ("next_state", "output", "why"),
    [
        ([[0, 0, 0, 0], [0, 1, 1, 1]], [[1, 2, 4, 8], [1, 2, 4, 8]], "not all states can be reached"),
        ([[0, 0, 0, 1], [1, 1, 1, 1]], [[1, 2, 4, 8], [2, 1, 4, 8]], "not strongly connected"),
        ([[0, 0, 0, 1], [1, 0, 1, 1]], [[1, 2, 4, 8], [1, 2, 4, 8]], "not minimal"),
        ([[0, 0, 0, 1], [1, 0, 1, 1]], [[1, 2, 4, 8], [1, 1, 1, 1]], "outputs not balanced"),
        ([[0, 0, 0, 1], [1, 0, 1, 1]], [[1, 2, 4, 8], [2, 1, 4, 8]], ""),
    ],
)
def test_flaws(next_state, output, why):
    table = Mealy(transducers.SYMBOLS, SHIPPED[0].inputs, np.array(next_state, np.uint16), np.array(output, np.uint8))
    assert transducers.flaw(table) == why


@pytest.mark.parametrize(("states", "number"), [(2, 1), (4, 3), (16, 2), (8, 103)])
def test_others_are_drawn_and_have_no_flaw(states, number):
    table = transducers.transducer(number, states)
    assert table.states == states
    assert transducers.flaw(table) == ""
    assert all(table.difference(transducers.transducer(k, states)) is not None for k in range(number))


@given(st.integers(1, 6), st.integers(0, 99), st.integers(1, 12))
@settings(max_examples=20, deadline=None)
def test_a_member_of_a_family_differs_in_so_many_transitions(edits, family, number):
    base = transducers.transducer(0, 8, edits, family)
    member = transducers.transducer(number, 8, edits, family)
    assert base.sha256() == SHIPPED[family].sha256()
    differ = (base.next_state != member.next_state) | (base.output != member.output)
    assert differ.sum() == edits == transducers.distance(base, member)
    assert transducers.flaw(member) == ""
    assert base.difference(member) is not None


def test_a_family_is_described():
    recipe = Recipe.of(edits=2, family=5)
    base, member = (catalog.load(Setting(f"transducer_00{k}", 0, recipe)) for k in (0, 7))
    assert catalog.family(base) == {"family": {"base": "transducer_005", "distance": 0, "telling": 0}}
    about = catalog.family(member)["family"]
    assert about["distance"] == 2
    assert about["telling"] == len(base.table.difference(member.table))
    assert catalog.family(catalog.load(Setting("xor", 0, recipe))) == {}


def test_what_cannot_be_found_is_refused():
    with pytest.raises(UsageError, match="no transducer"):  # a table of 2 x 4 transitions has 56 neighbours
        transducers.transducer(57, 2, 1, 0)
