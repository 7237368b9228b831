# SPDX-License-Identifier: GPL-3.0-or-later
"""dpkg's database in a root file system: packages, owners, diversions."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from debian_cloud.text import deb822

if TYPE_CHECKING:
    from collections.abc import Iterator

_MERGED: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
"""Names of links to directories in /usr, by which packages may name the files there (usrmerge)."""


class Dpkg:
    """The database of a tree; paths have no leading slash, and are those of a system with a merged /usr."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree
        self.folder = tree / "var/lib/dpkg"

    def real(self, name: str) -> str:
        """Where a path named by a package is: without a leading slash, in /usr if the directory is merged."""
        path = PurePosixPath("/" + name.strip("/"))
        first = path.parts[1] if len(path.parts) > 1 else ""
        if len(path.parts) > 2 and first in _MERGED and (self.tree / first).is_symlink():
            path = PurePosixPath("/usr") / path.relative_to("/")
        return str(path).lstrip("/")

    @cached_property
    def diversions(self) -> dict[str, tuple[str, str]]:
        """Path -> where other packages' files of that name go, and the package that diverts it (":" for none)."""
        lines = (self.folder / "diversions").read_text("utf-8").splitlines()
        triples = zip(lines[::3], lines[1::3], lines[2::3], strict=True)
        return {self.real(path): (self.real(to), owner) for path, to, owner in triples}

    @cached_property
    def overrides(self) -> list[str]:
        """Lines of dpkg-statoverride(1): user, group, mode, path."""
        return (self.folder / "statoverride").read_text("utf-8").splitlines()

    def _info(self, extension: str) -> Iterator[tuple[str, str]]:
        """(package, text) for each control file of a kind, whose name may also have the architecture."""
        for path in sorted((self.folder / "info").glob(f"*.{extension}")):
            yield path.name.removesuffix(f".{extension}").split(":")[0], path.read_text("utf-8")

    def place(self, package: str, name: str) -> str:
        """Where a package's file is, diversions by other packages considered."""
        path = self.real(name)
        to, owner = self.diversions.get(path, (path, package))
        return path if owner == package else to

    @cached_property
    def owners(self) -> dict[str, set[str]]:
        """Path -> the packages that own it: files, directories and conffiles."""
        found: dict[str, set[str]] = {}
        for package, text in self._info("list"):
            for line in text.splitlines():
                found.setdefault(self.place(package, line), set()).add(package)
        for package, stanza in self.packages.items():
            for line in stanza.get("Conffiles", "").splitlines():
                words = line.split()
                # A third word marks a conffile that the package no longer has.
                if len(words) == 2:
                    found.setdefault(self.place(package, words[0]), set()).add(package)
        # A package with /lib64 also owns /usr/lib64, the link's target.
        found.update({f"usr/{name}": found[name] for name in _MERGED if name in found})
        return found

    @cached_property
    def packages(self) -> dict[str, dict[str, str]]:
        """Package -> stanza of all packages in the database."""
        text = (self.folder / "status").read_text("utf-8")
        return {stanza["Package"]: stanza for stanza in deb822.parse(text)}

    @property
    def installed(self) -> dict[str, str]:
        """Package -> version of the installed packages."""
        whole = "install ok installed"
        return {name: it["Version"] for name, it in self.packages.items() if it["Status"] == whole}

    @cached_property
    def obsolete(self) -> list[tuple[str, str]]:
        """(package, path) of conffiles that the package no longer has."""
        return [
            (package, line.split()[0])
            for package, stanza in self.packages.items()
            for line in stanza.get("Conffiles", "").splitlines()
            if line.split()[2:] == ["obsolete"]
        ]

    @cached_property
    def alternatives(self) -> dict[str, str]:
        """Path of a generic name -> its link group in update-alternatives(1), slaves included."""
        found = {}
        for path in (self.folder / "alternatives").iterdir():
            lines = path.read_text("utf-8").splitlines()
            found[self.real(lines[1])] = path.name
            # then pairs of slave name and link, until an empty line
            for name, link in zip(lines[2::2], lines[3::2], strict=False):
                if not name:
                    break
                found[self.real(link)] = path.name
                found[f"etc/alternatives/{name}"] = path.name
            found[f"etc/alternatives/{path.name}"] = path.name
        return found
