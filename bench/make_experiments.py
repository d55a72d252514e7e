"""Makes the datasets of the experiments in full size, and asks them everything; hours, in the background.

    python bench/make_experiments.py FOLDER [--ds1 1000] [--ds2 500] [--ds3 20] [--seeds 5] [--workers 2] [--rungs ...]

Folders FOLDER/ds1, FOLDER/ds2 (both matched) and FOLDER/ds3 are made or grow, and so are those held out,
FOLDER/ds1-held-out and FOLDER/ds2-held-out, with seed 1 and a tenth of the networks. A finished dataset is only opened,
an experiment whose JSON is in FOLDER is not run again, and one that was interrupted keeps its rows, so the same command
goes on after an interruption. At the end, the lines of all experiments, with the digests, are in
bench/results/experiments-DATE.jsonl; `bench/experiment_tables.py` makes tables of them.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import tinymlds
from tinymlds.tasks import DATASETS

RESULTS = Path(__file__).parent / "results"
HELD_OUT_SEED = 1

WITHOUT_CONTROLS = "*/plain,*/moved,*/canonical"
"""Rungs of networks held out: those that ask what is learned."""

EXPERIMENTS: dict[str, dict[str, Any]] = {
    "which-machine": {"folders": ["ds1"], "experiment": "which-machine"},
    "which-machine-held-out": {
        "folders": ["ds1"],
        "experiment": "which-machine",
        "held_out": ["ds1-held-out"],
        "rungs": WITHOUT_CONTROLS,
    },
    "tampered": {"folders": ["ds1", "ds2"], "experiment": "tampered"},
    "tampered-held-out": {
        "folders": ["ds1", "ds2"],
        "experiment": "tampered",
        "held_out": ["ds1-held-out", "ds2-held-out"],
        "rungs": WITHOUT_CONTROLS,
    },
    "tampered-unseen": {"folders": ["ds1", "ds2"], "experiment": "tampered-unseen"},
    "which-transducer": {"folders": ["ds3"], "experiment": "which-transducer"},
    "epochs-of-machines": {"folders": ["ds1"], "experiment": "predict-epochs"},
    "epochs-of-modified": {"folders": ["ds2"], "experiment": "predict-epochs"},
    "epochs-of-transducers": {"folders": ["ds3"], "experiment": "predict-epochs"},
}


def make(name: str, count: int, seed: int, workers: int | None) -> None:
    """Make or extend a dataset in this folder; its name begins with that of the tasks."""
    tasks = name[:3]
    assert tasks in DATASETS, name
    result = tinymlds.train(dataset=tasks, count=count, out=name, seed=seed, workers=workers, matched=tasks != "ds3")
    print(f"{name}: {count} networks of each task, digest {result.digest}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    for dataset, count in (("ds1", 1000), ("ds2", 500), ("ds3", 20)):
        parser.add_argument(f"--{dataset}", type=int, default=count, help=f"networks of each task ({count})")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rungs", help="some of the ladder; all if left out, and without controls for networks held out")
    parser.add_argument("--workers", type=int)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    os.chdir(options.folder)  # so that commands in the results name ds1, not where it is
    for dataset in DATASETS:
        count = getattr(options, dataset)
        make(dataset, count, 0, options.workers)
        if dataset != "ds3":
            make(f"{dataset}-held-out", -(-count // 10), HELD_OUT_SEED, options.workers)
    for name, asked in EXPERIMENTS.items():
        out = Path(f"{name}.json")
        if not out.exists():
            show = lambda case, rung, name=name: print(f"{name}, {case}: {rung}", file=sys.stderr, flush=True)  # noqa: E731
            workers = options.workers or os.cpu_count() or 1
            common = {"seeds": options.seeds, "workers": workers, "progress": show, "out": out}
            tinymlds.analyze(**{**asked, **common, **({"rungs": options.rungs} if options.rungs else {})})
    lines = "".join(Path(f"{name}.json").read_text() for name in EXPERIMENTS)
    target = RESULTS / f"experiments-{time.strftime('%Y-%m-%d')}.jsonl"
    target.write_text(lines)
    print(target)


if __name__ == "__main__":
    main()
