"""docs/first_picture.py, which draws the picture of the README, draws every network; its answers are the machine's."""

import importlib.util

import numpy as np
import pytest
from running import ROOT, SMALL

from tinymlds.spec import Recipe, Setting
from tinymlds.tasks import catalog

matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")


@pytest.fixture(scope="module")
def script():
    """The script as a module."""
    matplotlib.use("Agg")
    place = importlib.util.spec_from_file_location("first_picture", ROOT / "docs" / "first_picture.py")
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return module


def test_the_script_draws_every_network(script, tmp_path):
    """A point for each network, the states of all units, an answer for each step, and the picture in a file."""
    from matplotlib import image, pyplot

    try:
        script.draw(3, f"{tmp_path}/picture", f"{tmp_path}/first.png", workers=1, **SMALL)
        plane, states, answers = pyplot.gcf().axes
    finally:
        pyplot.close("all")
    points = [cloud.get_offsets() for cloud in plane.collections]
    assert [len(cloud) for cloud in points] == [3] * 5
    assert len(np.unique(np.concatenate(points), axis=0)) == 15
    assert states.images[0].get_array().shape == (48, 16)
    assert [len(line.get_xdata()) for line in answers.lines] == [16, 16]
    assert image.imread(tmp_path / "first.png").std() > 0.05, "an empty picture"


def test_the_answers_called_right_are_those_of_the_machine(script):
    table = catalog.load(Setting("xor_modified", 0, Recipe())).table
    symbols = [table.symbols.index(command) for command in script.COMMANDS.split(",")]
    assert (table.simulate(np.array([symbols]))[0] & 1).tolist() == script.RIGHT
