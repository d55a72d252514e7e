"""`--full`: the promises of docs/promises.md in full numbers; their figures are kept in bench/results/promises.json."""

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tinymlds

FIGURES = Path(__file__).parent.parent / "bench" / "results" / "promises.json"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--full", action="store_true", help="the full numbers of docs/promises.md (hours), not a share of them"
    )


LONGEST = (
    "test_ptx",
    "test_kernels",
    "test_crashes",
    "test_cuda",
    "test_targets",
    "test_mutations",
    "test_publish_readers",
    "test_strangers",
    "test_docs",
    "test_cache",
    "test_durability",
    "test_compiled_code",
    "test_divergence",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that no process of pytest-xdist is left with one at the end.

    For that it needs `--dist loadfile --no-loadscope-reorder`.
    """
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONGEST)))


@pytest.fixture
def share(request: pytest.FixtureRequest) -> Callable[[int, int], int]:
    """share(full, usual): how many of something to try, with `--full` and without."""
    full = request.config.getoption("--full")
    return lambda all_of_them, some: all_of_them if full else some


@pytest.fixture
def within(share: Callable[[int, int], int]) -> Callable[[float], float]:
    """within(seconds): the time that a promise allows, with `--full` on a quiet machine; ten times that otherwise, as tests
    share their machine with whatever else runs on it, and what they look for then is whether it ends by itself at all.
    """
    return lambda seconds: seconds * share(1, 10)


@pytest.fixture
def draw() -> random.Random:
    """Random numbers with a new seed each time; pytest shows the seed when a test fails."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[..., None]:
    """figure(name=value, ...): what a promise came to. Printed; with `--full` also kept."""

    def keep(**values: Any) -> None:
        name = request.node.name
        print(f"{name}: {values}")
        if request.config.getoption("--full"):
            known = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
            known[name] = {**values, "date": time.strftime("%Y-%m-%d")}
            FIGURES.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")

    return keep


@pytest.fixture(scope="session")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of four networks each that have learned their task: direct and its twin (matched), invert, xor.

    With seed 12 the first four indices are on all three sides of the split.
    """
    root = tmp_path_factory.mktemp("learned")
    quick = {"train_sequences": 16384, "validation_sequences": 512, "seed": 12}
    for task, matched in (("direct", True), ("direct_modified", True), ("invert", False), ("xor", False)):
        tinymlds.train(task, 4, root / task, workers=1, matched=matched, **quick)
    return root


@pytest.fixture(scope="session")
def packaged(learned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of them, each with a subset of two networks. Not to be changed."""
    out = tmp_path_factory.mktemp("packaged") / "PKG"
    about = {"date": "2026-11-25", "title": 'Four "tasks": a\\b', "authors": ["Ö. N'e"]}
    tinymlds.package(sorted(learned.iterdir()), out, subsets=[2], software_url="https://example.org/a_b", **about)
    return out


@pytest.fixture(scope="session")
def whole_and_parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run's dataset, and eight parts of it that were made apart. Not to be changed."""
    from eight_parts import make_whole_and_parts

    return make_whole_and_parts(tmp_path_factory.mktemp("whole-and-parts"))


@pytest.fixture(scope="session")
def parts(whole_and_parts: Path) -> list[Path]:
    """The folders of the eight parts."""
    from eight_parts import parts_in

    return parts_in(whole_and_parts)


@pytest.fixture(scope="session")
def forged(whole_and_parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Part 3 with a network that is another one."""
    from eight_parts import forge_third

    return forge_third(whole_and_parts, tmp_path_factory.mktemp("forged") / "q3")


@pytest.fixture
def small_forests(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tests of the analysis ask can be told by fewer trees."""
    from tinymlds.analysis import models

    monkeypatch.setattr(models, "TREES", 20)
    monkeypatch.setattr(models, "ROUNDS", 20)
