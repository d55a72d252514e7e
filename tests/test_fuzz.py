"""Files changed at random, with true checksums, raise nothing but tinymlds' own errors: five minutes with `--full`.

With atheris (extra [fuzz]) coverage guides half of them; without it, that half is random too, so that nothing is skipped.
"""

import os
import re
import subprocess
import sys

import pytest
from running import ROOT


@pytest.mark.parametrize("means", ["by coverage", "at random"])
def test_nothing_but_our_errors(tmp_path, share, draw, figure, means):
    seconds = share(300, 10)
    options = ["--random", str(draw.randrange(2**32))] if means == "at random" else []
    command = [sys.executable, str(ROOT / "tests" / "fuzz.py"), "--seconds", str(seconds), *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    inputs = re.search(r"Done (\d+) runs", done.stderr) or re.search(r"(\d+) inputs", done.stdout)
    assert int(inputs[1]) > seconds
    figure(inputs=int(inputs[1]), seconds=seconds, engine="atheris" if "Done" in inputs[0] else "random")
