"""croissant.json, the machine-readable description in Croissant 1.0 (mlcommons.org/croissant), a dialect of JSON-LD."""

import json
from typing import Any

from tinymlds.dataset import schema, store
from tinymlds.publish.contents import Contents
from tinymlds.publish.dictionary import ADDED, COLUMNS, ROW_COLUMNS, TYPES
from tinymlds.publish.parts import Part

_OWN_TERMS = (
    "citeAs column equivalentProperty extract field fileObject fileProperty fileSet format includes isLiveDataset "
    "jsonPath key md5 parentField path recordSet references regex repeated replace samplingRate separator source "
    "subField transform"
)
"""The terms that Croissant defines, each under its own name."""

_CONTEXT: dict[str, Any] = {
    **{name: f"cr:{name}" for name in _OWN_TERMS.split()},
    "@language": "en",
    "@vocab": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
}
"""The context that the specification requires."""

_TYPES = {"string": "sc:Text", "integer": "sc:Integer", "float": "sc:Float", "boolean": "sc:Boolean"}
_LINES = "application/jsonlines"
_Json = dict[str, Any]


def croissant(contents: Contents, sums: dict[str, str]) -> str:
    """Return the file; `sums` is {name: sha256} of the files of the package."""
    parts, schemes, metadata = contents.parts, contents.schemes, contents.metadata
    single = {store.DESCRIPTION: "application/json", store.MANIFEST: _LINES}
    files = [(f"{part.folder}/{name}", kind) for part in parts for name, kind in single.items()]
    sides = [(scheme, side) for scheme in schemes for side, rows in scheme.sides.items() if rows]
    files += [(scheme.file_name(side), _LINES) for scheme, side in sides]
    records = [
        _records(f"{part.name}-networks", f"{part.folder}/{store.MANIFEST}", f"All networks of {part.name}", tuple(COLUMNS))
        for part in parts
    ]
    records += [
        _records(
            f"{scheme.name}-{side}", scheme.file_name(side), f"Split {scheme.name}, {side}: {scheme.meaning}", ROW_COLUMNS
        )
        for scheme, side in sides
    ]
    page: _Json = {
        "@context": dict(sorted(_CONTEXT.items())),
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": metadata.identifier(parts),
        "alternateName": metadata.title,
        "description": contents.description,
        "license": metadata.license_url,
        "version": f"{metadata.version}",
        "citeAs": metadata.bibtex(parts),
        "creator": [{"@type": "sc:Organization", "name": name} for name in metadata.credited],
        "distribution": [
            *(
                _entry("cr:FileObject", _id(name), contentUrl=name, encodingFormat=kind, sha256=sums[name])
                for name, kind in files
            ),
            *(entry for part in parts for entry in _sets(part)),
        ],
        "recordSet": records,
    }
    page |= {"datePublished": metadata.date} if metadata.date else {}
    page |= {"url": metadata.url} if metadata.url else {}
    if metadata.software_url:
        software = {"@type": "sc:SoftwareApplication", "name": "tinymlds", "softwareVersion": metadata.version}
        page["isBasedOn"] = software | {"url": metadata.software_url}
    return json.dumps(page, indent=1, ensure_ascii=True) + "\n"


def _entry(kind: str, name: str, **about: Any) -> _Json:
    return {"@type": kind, "@id": name, "name": name, **about}


def _sets(part: Part) -> list[_Json]:
    """Return a file set for each kind of file that a dataset has many of; SHA256SUMS has the hash of each."""
    return [
        _entry(
            "cr:FileSet",
            f"{part.name}-{kind}-files",
            description=f"{_MEANINGS[kind]} of {part.name}; the sha256 of each file is in SHA256SUMS",
            encodingFormat="application/x-safetensors",
            includes=f"{part.folder}/{kind}/*.safetensors",
        )
        for kind in (*schema.kinds(part.full.spec), "data")
    ]


_MEANINGS = {
    "networks": "Weights of the networks, stacked by task",
    "losses": "Losses of every epoch",
    "checkpoints": "Weights along the way",
    "data": "Mealy tables and sequences of the tasks",
}


def _records(name: str, file: str, description: str, columns: tuple[str, ...]) -> _Json:
    """Return a record set of the rows of a JSON Lines file."""
    about = COLUMNS | ADDED
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"{name}/{column}",
            "name": column,
            "description": about[column][2],
            "dataType": _TYPES[TYPES[column]],
            "source": {"fileObject": {"@id": _id(file)}, "extract": {"column": column}},
        }
        for column in columns
    ]
    keys = [{"@id": f"{name}/{column}"} for column in ("dataset", "task", "index") if column in columns]
    return _entry("cr:RecordSet", name, description=description, key=keys, field=fields)


def _id(name: str) -> str:
    """Return a name without "/", which Croissant reserves for fields of a record set."""
    return name.replace("/", "-")
