"""`gpu.py` from end to end at tiny sizes, so that it works on the day that a GPU is there."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(importlib.util.find_spec("numba_cuda") is None, reason="numba-cuda is not installed")
def test_smoke(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    here, out = Path(__file__).parent, tmp_path / "gpu.json"
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": str(here.parent)}
    command = [sys.executable, str(here / "gpu.py"), "--smoke", "--whole", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())
    assert figures["parity"]["small"]["gradients"]
    assert figures["parity"]["small"]["networks"]
    (rates,) = figures["rates"]
    assert set(rates["tinymlds"]) == {"1", "2"}
    assert rates["torch, one at a time"]["sample_steps_per_second"] > 0
    assert figures["whole"]["2 xor networks"]["digest"]
