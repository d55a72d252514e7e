"""Makes the datasets of the experiments in full size, and asks them everything; hours, in the background.

    python bench/make_experiments.py FOLDER [--only tampered,...] [--ds1 1000] [--ds2 500] [--ds3 20] [--workers 2]

Folders FOLDER/ds1, FOLDER/ds3 and, for each machine, FOLDER/ds2-MACHINE are made or grow (machines and twins matched), and
so are those held out, ds1-held-out, ds1-MACHINE-held-out and ds2-MACHINE-held-out, with seed 1 and a tenth of the networks;
of all these, what the experiments of --only need. A finished dataset is only opened, an experiment whose JSON is in FOLDER
is not run again, and one that was interrupted keeps its rows, so the same command goes on after an interruption. At the
end, the lines of these experiments, with the digests, are in bench/results/experiments-DATE.jsonl, those that an earlier
command of the same day left there included; `bench/experiment_tables.py` makes tables of them.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import tinymlds
from tinymlds.tasks.catalog import DATASETS

RESULTS = Path(__file__).parent / "results"
HELD_OUT = "-held-out"
HELD_OUT_SEED = 1

MACHINES = ("direct", "invert", "xor", "eightbit", "parity")
"""In the order in which twins are made: those that take least first."""

TWINS = [f"ds2-{machine}" for machine in MACHINES]

WITHOUT_CONTROLS = "*/plain,*/moved,*/canonical"
"""Rungs of networks held out: those that ask what is learned."""

UNSEEN = (
    "majority,linear/*/plain,linear/*/canonical,linear/*/equalised,"
    "forest/*/plain,forest/*/canonical,forest/statistics/equalised,forest/epochs/equalised,graph/raw/plain"
)
"""Rungs of tampered-unseen, in which each machine's models are trained on the networks of all others."""

EPOCHS = "*/plain,*/canonical,*/initial"
"""Rungs of predict-epochs; initial weights may tell how long training will take."""

EXPERIMENTS: dict[str, dict[str, Any]] = {
    "which-machine": {"folders": ["ds1"], "experiment": "which-machine"},
    "which-machine-held-out": {
        "folders": ["ds1"],
        "experiment": "which-machine",
        "held_out": ["ds1-held-out"],
        "rungs": WITHOUT_CONTROLS,
    },
    **{f"tampered-{machine}": {"folders": ["ds1", f"ds2-{machine}"], "experiment": "tampered"} for machine in MACHINES},
    "tampered-all": {"folders": ["ds1", *TWINS], "experiment": "tampered", "cases": "all"},
    **{
        f"tampered-{machine}-held-out": {
            "folders": ["ds1", f"ds2-{machine}"],
            "experiment": "tampered",
            "cases": machine,
            "held_out": [f"{dataset}-{machine}{HELD_OUT}" for dataset in ("ds1", "ds2")],
            "rungs": WITHOUT_CONTROLS,
        }
        for machine in MACHINES
    },
    "tampered-unseen": {"folders": ["ds1", *TWINS], "experiment": "tampered-unseen", "rungs": UNSEEN},
    "which-transducer": {"folders": ["ds3"], "experiment": "which-transducer"},
    "epochs-of-machines": {"folders": ["ds1"], "experiment": "predict-epochs", "rungs": EPOCHS},
    "epochs-of-modified": {"folders": TWINS, "experiment": "predict-epochs", "rungs": EPOCHS},
    "epochs-of-transducers": {"folders": ["ds3"], "experiment": "predict-epochs", "rungs": EPOCHS},
}


def make(name: str, networks: dict[str, int], workers: int | None) -> None:
    """Make or extend a dataset in this folder; its name begins with that of its tasks, and says the machine of twins."""
    held = name.endswith(HELD_OUT)
    dataset, _, machine = name.removesuffix(HELD_OUT).partition("-")
    count = -(-networks[dataset] // 10) if held else networks[dataset]
    tasks: dict[str, Any] = {"machine": machine, "modified": dataset == "ds2"} if machine else {"dataset": dataset}
    seed = HELD_OUT_SEED if held else 0
    result = tinymlds.train(**tasks, count=count, out=name, seed=seed, workers=workers, matched=dataset != "ds3")
    print(f"{name}: {count} networks of each task, digest {result.digest}", flush=True)


def experiment_names(text: str) -> list[str]:
    """Names of experiments, with commas between them, as an option says them."""
    names = text.split(",")
    if unknown := [name for name in names if name not in EXPERIMENTS]:
        raise argparse.ArgumentTypeError(f"there is no {unknown[0]!r}; there are {', '.join(EXPERIMENTS)}")
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", type=experiment_names, default=list(EXPERIMENTS), help="experiments, with commas (all)")
    for dataset, count in (("ds1", 1000), ("ds2", 500), ("ds3", 20)):
        parser.add_argument(f"--{dataset}", type=int, default=count, help=f"networks of each task ({count})")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rungs", help="some of the ladder, for every experiment; those in EXPERIMENTS if left out")
    parser.add_argument("--workers", type=int)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    os.chdir(options.folder)  # so that commands in the results name ds1, not where it is
    asked = {name: EXPERIMENTS[name] for name in options.only}
    for name in dict.fromkeys(name for each in asked.values() for name in [*each["folders"], *each.get("held_out", [])]):
        make(name, {dataset: getattr(options, dataset) for dataset in DATASETS}, options.workers)
    for name, each in asked.items():
        out = Path(f"{name}.json")
        if not out.exists():
            show = lambda case, rung, name=name: print(f"{name}, {case}: {rung}", file=sys.stderr, flush=True)  # noqa: E731
            workers = options.workers or os.cpu_count() or 1
            common = {"seeds": options.seeds, "workers": workers, "progress": show, "out": out}
            tinymlds.analyze(**{**each, **common, **({"rungs": options.rungs} if options.rungs else {})})
    target = RESULTS / f"experiments-{time.strftime('%Y-%m-%d')}.jsonl"
    earlier = target.read_text().splitlines(keepends=True) if target.exists() else []
    lines = dict.fromkeys([*earlier, *(Path(f"{name}.json").read_text() for name in asked)])
    target.write_text("".join(lines))
    print(target)


if __name__ == "__main__":
    main()
