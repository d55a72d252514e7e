"""What datasets would take with the PyTorch reference: some networks trained to the end, and the rest by their epochs.

    python bench/extrapolate.py FOLDER... [--networks 3] [--json FILE]

Both train the first networks of the first folder's task with the fewest epochs, network by network in turns, on one thread
each, from the same weights on the same sequences in the same order. An epoch takes the same work whatever the task, so a
dataset takes its epochs times the seconds of an epoch; CPU seconds, as in `compare.py`, and no cost for a pool.
"""

import argparse
import json
import time
from pathlib import Path

import machine
from reference import TorchBackend

import tinymlds
from tinymlds.spec import Setting
from tinymlds.training import backends
from tinymlds.training.loop import train_networks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--networks", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    datasets = [tinymlds.open(folder) for folder in options.folders]
    epochs = {d.folder.name: sum(row["epochs"] for row in d.manifest) for d in datasets}
    first = datasets[0]
    task = min(first.tasks, key=lambda name: sum(row["epochs"] for row in first.rows(name, unfinished=True)))
    rivals = {"tinymlds": backends.load("cpu"), "torch": TorchBackend()}
    rivals["tinymlds"].prepare(first.shape)
    seconds, trained = dict.fromkeys(rivals, 0.0), dict.fromkeys(rivals, 0)
    for index in range(options.networks):
        for name, rival in rivals.items():
            start = time.process_time()
            (outcome,) = train_networks(rival, Setting(task, first.spec.seed, first.spec.recipe), range(index, index + 1))
            seconds[name] += time.process_time() - start
            trained[name] += outcome.epochs
    pace = {name: seconds[name] / trained[name] for name in rivals}
    print(f"{options.networks} networks of {task}: {trained} epochs, CPU seconds an epoch {pace}")
    print(f"ratio {pace['torch'] / pace['tinymlds']:.1f}")
    hours = {name: {rival: count * pace[rival] / 3600 for rival in rivals} for name, count in epochs.items()}
    for name, found in hours.items():
        print(f"{name}: {epochs[name]} epochs, CPU hours " + ", ".join(f"{k} {v:.2f}" for k, v in found.items()))
    if options.json:
        figures = {"task": task, "epochs_trained": trained, "seconds_per_epoch": pace, "epochs": epochs, "cpu_hours": hours}
        options.json.write_text(json.dumps({"machine": machine.describe(), **figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
