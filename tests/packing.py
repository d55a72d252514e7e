"""Packages as the format wants them, for tests of what reads them."""

import shutil

from forging import canonical

import tinymlds
from tinymlds.dataset import packages
from tinymlds.dataset.dataset import Dataset


def package(place, *folders, subsets=()):
    """A package as the format wants it, without what `open` does not read; all `subsets` belong to each dataset."""
    entries = []
    for folder in folders:
        name = folder.name
        copy = shutil.copytree(folder, place / name / "full")
        dataset = Dataset(copy)
        entries.append(
            {
                "name": name,
                "folder": f"{name}/full",
                "digest": dataset.digest,
                "networks": len(dataset),
                "complete": sum(row["status"] == "complete" for row in dataset.manifest),
                "subsets": [],
            }
        )
        for smaller in subsets:
            count = Dataset(smaller).counts["xor"]
            shutil.copytree(smaller, place / name / str(count))
            subset = {"count": count, "folder": f"{name}/{count}", "digest": Dataset(smaller).digest}
            entries[-1]["subsets"].append(subset)
    about = {
        "format": 1,
        "kind": "package",
        "version": tinymlds.__version__,
        "title": "Two",
        "license": "CC-BY-SA-4.0",
        "datasets": entries,
    }
    write(place, about)
    return place


def write(place, about):
    (place / packages.MARKER).write_text(canonical(about) + "\n")
