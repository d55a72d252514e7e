"""docs/first_picture.py, the first script that a new user runs, draws its picture."""

import importlib.util

import numpy as np
import pytest
from running import ROOT, SMALL

matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed")


def test_the_script_draws_every_network(tmp_path):
    """A point and a curve for each network, and the picture in a file."""
    matplotlib.use("Agg")
    from matplotlib import image, pyplot

    place = importlib.util.spec_from_file_location("first_picture", ROOT / "docs" / "first_picture.py")
    script = importlib.util.module_from_spec(place)
    place.loader.exec_module(script)
    try:
        script.draw(3, f"{tmp_path}/picture", f"{tmp_path}/first.png", workers=1, **SMALL)
        plane, curves = pyplot.gcf().axes
    finally:
        pyplot.close("all")
    points = [cloud.get_offsets() for cloud in plane.collections]
    assert [len(cloud) for cloud in points] == [3, 3, 3]
    assert len(np.unique(np.concatenate(points), axis=0)) == 9
    assert [len(line.get_xdata()) for line in curves.lines] == [3] * 9 + [2], "losses of three epochs, and the threshold"
    assert image.imread(tmp_path / "first.png").std() > 0.05, "an empty picture"
