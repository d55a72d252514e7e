"""The files of a package that follow from its datasets alone, as bytes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tinymlds.architectures import symmetry
from tinymlds.dataset import packages
from tinymlds.publish.audit import Audit
from tinymlds.publish.dictionary import data_dictionary
from tinymlds.publish.metadata import Metadata
from tinymlds.publish.parts import Part, subset_count
from tinymlds.publish.schemes import Scheme
from tinymlds.spec import canonical_json

AUDIT = "audit.json"
PARQUET = "manifest.parquet"
TEXTS = ("README.md", "CITATION.cff", "croissant.json")
"""Files that also depend on all metadata of the publisher."""


@dataclass(frozen=True)
class Contents:
    """The content of a package, from which its descriptions are made."""

    parts: list[Part]
    schemes: list[Scheme]
    audit: Audit
    metadata: Metadata
    sizes: Mapping[str, int] = field(default_factory=dict)
    """The sizes of the files by their path in the package; for the card."""

    @property
    def description(self) -> str:
        """A sentence on the package."""
        networks = sum(len(part.full) for part in self.parts)
        tasks = sum(len(part.full.tasks) for part in self.parts)
        parameters = self.parts[0].architecture.size
        return (
            f"Weights, losses and training records of {networks:,} recurrent neural networks of {parameters:,} parameters, "
            f"trained on {tasks} finite-state tasks, with the tasks' tables and sequences."
        )


def derived(contents: Contents) -> dict[str, bytes]:
    """Return the files that follow from the datasets, the title, the licence and the version of tinymlds."""
    architecture = contents.parts[0].architecture
    files = {
        packages.MARKER: (canonical_json(marker(contents)) + "\n").encode(),
        AUDIT: report_text(contents.audit),
        "DATA_DICTIONARY.csv": data_dictionary(contents.parts).encode(),
        "symmetries.json": _indented(symmetry.describe(architecture)),
    }
    return files | {name: data for scheme in contents.schemes for name, data in scheme.files().items()}


def marker(contents: Contents) -> dict[str, Any]:
    """Return the content of tinymlds.json."""
    datasets = [
        {
            "name": part.name,
            "folder": part.folder,
            "digest": part.full.digest,
            "networks": len(part.full),
            "complete": contents.audit.complete(part.name),
            "subsets": [
                {"count": (n := subset_count(smaller)), "folder": f"{part.name}/{n}", "digest": smaller.digest}
                for smaller in part.subsets
            ],
        }
        for part in contents.parts
    ]
    metadata = contents.metadata
    about = {"version": metadata.version, "title": metadata.title, "license": metadata.license}
    return {"format": packages.FORMAT, "kind": "package", **about, "datasets": datasets}


def report_text(audit: Audit) -> bytes:
    """Return the bytes of audit.json."""
    return _indented(audit.report)


def _indented(value: Any) -> bytes:
    """Return indented JSON for human readers, with a unique spelling."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=True, allow_nan=False) + "\n").encode()
