"""The metadata of a package: title, authors, licence, date, address."""

import datetime
import re
from dataclasses import dataclass

from tinymlds.errors import UsageError, nearest
from tinymlds.publish.parts import Part

_LONGEST = 300
_DEVELOPERS = "The tinymlds developers"


_USUAL = ("CC-BY-4.0", "CC-BY-SA-4.0", "CC0-1.0", "ODbL-1.0", "Apache-2.0", "MIT")
"""Licences that data often have."""


def spdx(license: str) -> str:
    """Return an SPDX expression in the spelling of SPDX; as it is given where `packaging` is not installed.

    Raises:
        UsageError: SPDX does not know the licence.
    """
    try:
        from packaging import licenses
    except ImportError:
        return license
    try:
        return licenses.canonicalize_license_expression(license)
    except licenses.InvalidLicenseExpression as error:
        hint = nearest(license, _USUAL) or f"; usual are {', '.join(_USUAL)}"
        raise UsageError(f"license must be an SPDX expression, and {license!r} is none{hint}") from error


@dataclass(frozen=True)
class Metadata:
    """Metadata given by the publisher, except for the version."""

    version: str
    """The version of tinymlds."""
    title: str
    license: str = "CC-BY-SA-4.0"
    """An SPDX expression."""
    authors: tuple[str, ...] = ()
    date: str | None = None
    """YYYY-MM-DD."""
    url: str | None = None
    """The address of the package."""
    software_url: str | None = None
    """The address of tinymlds."""

    def __post_init__(self) -> None:
        for what, text in (("title", self.title), *(("author", name) for name in self.authors)):
            if not text.strip() or len(text) > _LONGEST or not text.isprintable():
                raise UsageError(f"{what} must be a line of 1 to {_LONGEST} characters, not {text!r}")
        if not re.fullmatch(r"[A-Za-z0-9.+-]+( (WITH|AND|OR) [A-Za-z0-9.+-]+)*", self.license):
            raise UsageError(f"license must be an SPDX expression like CC-BY-SA-4.0, not {self.license!r}")
        for what, address in (("url", self.url), ("software url", self.software_url)):
            if address is not None and not re.fullmatch(r"https?://[\x21-\x7e]{1,2000}", address):
                raise UsageError(f"{what} must begin with http:// or https:// and have no spaces, not {address!r}")
        if self.date is not None:
            try:
                right = datetime.date.fromisoformat(self.date).isoformat() == self.date
            except ValueError:
                right = False
            if not right:
                raise UsageError(f"date must be a day like 2026-11-25, not {self.date!r}")

    @property
    def license_url(self) -> str:
        """The address of the licence text, or the expression itself if it combines several licences."""
        return self.license if " " in self.license else f"https://spdx.org/licenses/{self.license}.html"

    @property
    def credited(self) -> tuple[str, ...]:
        """The authors, or the developers of tinymlds if none are named."""
        return self.authors or (_DEVELOPERS,)

    def identifier(self, parts: list[Part]) -> str:
        """Return a short name made of the names of the datasets."""
        return "-".join(["tinymlds", *(part.name for part in parts)])

    def bibtex(self, parts: list[Part]) -> str:
        """Return the BibTeX entry that cites the package, with special characters escaped."""
        escaped = {sign: "\\" + sign for sign in "{}%&$#_"} | {"\\": r"\textbackslash{}"}
        title, authors = (
            "".join(escaped.get(sign, sign) for sign in text) for text in (self.title, " and ".join(self.credited))
        )
        lines = [f"title = {{{title}}}", f"author = {{{authors}}}"]
        lines += [f"year = {{{self.date[:4]}}}"] if self.date else []
        lines += [f"url = {{{self.url}}}"] if self.url else []
        found = f", \\url{{{self.software_url}}}" if self.software_url else ""
        lines.append(f"note = {{Made with tinymlds {self.version}{found}}}")
        return f"@misc{{{self.identifier(parts)}, {', '.join(lines)}}}"
