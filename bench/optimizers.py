"""The cost of a training step with each optimizer, as a ratio to Adam's: CPU seconds, in turns on one thread.

python bench/optimizers.py [--rounds 15] [--steps 128] [--out FILE.json]
"""

import argparse
import json
from pathlib import Path
from statistics import median

from machine import describe
from steps import Stepper, cpu_seconds

from tinymlds.kernels.optimizers import OPTIMIZERS
from tinymlds.spec import Recipe
from tinymlds.training.backends.cpu import CpuBackend


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=128, help="training steps of an optimizer in a round")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    recipes = {name: Recipe.of(optimizer=name) for name in OPTIMIZERS}
    steppers = {name: Stepper(CpuBackend(), recipe) for name, recipe in recipes.items()}
    for stepper in steppers.values():
        stepper(options.steps)
    rounds = [
        {name: cpu_seconds(lambda each=stepper: each(options.steps)) for name, stepper in steppers.items()}
        for _ in range(options.rounds)
    ]
    found = {}
    for name in steppers:
        ratios = sorted(each[name] / each["adam"] for each in rounds)
        fastest = [min(each[who] for each in rounds) for who in (name, "adam")]
        micro = 1e6 * median(each[name] for each in rounds) / options.steps
        found[name] = {
            "microseconds": round(micro, 1),
            "ratio": round(median(ratios), 4),
            "least": round(ratios[0], 4),
            "greatest": round(ratios[-1], 4),
            "ratio_of_fastest": round(fastest[0] / fastest[1], 4),
        }
        print(f"{name:10} {micro:8.1f} us  {median(ratios):.3f} of Adam's (fastest rounds {fastest[0] / fastest[1]:.3f})")
    if options.out:
        asked = {"rounds": options.rounds, "steps": options.steps, "batch": recipes["adam"].batch}
        options.out.write_text(json.dumps({"machine": describe(), "asked": asked, "optimizers": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
