# SPDX-License-Identifier: GPL-3.0-or-later
"""Signed uploads for an archive's queue, made from the operator's own packages and images.

An uploader's key with its own line in conf/uploaders signs them, not the archive's key, so that `accept` has one way
in. The key has no passphrase and is stored beside the archive's key, which has none either: a user who can read one
can read the other. Copies are signed; the original files do not change.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from dataclasses import dataclass
from email.utils import formatdate
from typing import TYPE_CHECKING, Final

from debian_cloud.archive import debfile, upload
from debian_cloud.errors import USAGE, Error
from debian_cloud.host import checksums, files, sign
from debian_cloud.text import openpgp
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from debian_cloud.text.deb822 import Stanza

_ALGORITHMS: Final = ("md5", "sha1", "sha256")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~_-]*")
_SIGNED: Final = (".dsc", ".buildinfo")
"""In this order: a .buildinfo lists the .dsc."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """An upload: the name of its .changes, and its path; None if the archive already has all of it."""

    name: str
    changes: Path | None


def prepare(
    archive: Path, work: Path, given: Iterable[Path], *, suite: str, homedir: Path, key: str, known: Path
) -> Iterator[Prepared]:
    """Make uploads of the given .changes, .debs and directories, each in its own directory below `work`.

    .debs go to `suite`; `key` in the GnuPG home `homedir` signs; `known` lists what the archive has, in lines of
    codename and SHA-256.
    """
    there = frozenset(files.text(known, 2**28).splitlines())
    changes, debs = _given(given)
    uploads = [*map(_listed, changes), *_of_debs(debs, suite)]
    for number, (name, text, parts) in enumerate(uploads):
        found = upload.changes(text.encode())
        if _is_there(archive, name, found, there):
            yield Prepared(name, None)
            continue
        folder = work / str(number)
        folder.mkdir()
        for part, path in parts.items():
            _link(path, folder / part)
        _sign(folder, name, text, homedir, key)
        yield Prepared(name, folder / name)


def _given(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """The .changes and the .debs to add; the .debs of a directory only if it has no .changes."""
    changes: list[Path] = []
    debs: list[Path] = []
    for path in paths:
        if path.is_dir():
            there = sorted(path.glob("*.changes"))
            changes += there
            if not there and not (own := sorted(path.glob("*.deb"))):
                raise Error(
                    f"{printable(str(path))} has neither a .changes nor a .deb",
                    "give a directory that `make packages`, dpkg-buildpackage or `debian-cloud build` wrote to",
                    USAGE,
                )
            debs += [] if there else own
        elif path.name.endswith(".changes"):
            if not _NAME.fullmatch(path.name):
                raise Error(
                    f"{printable(path.name)} is not a valid name of an upload",
                    "use only letters, digits and .+~_-",
                    USAGE,
                )
            changes.append(path)
        elif path.name.endswith(".deb"):
            debs.append(path)
        else:
            raise Error(
                f"{printable(str(path))} is neither a .changes, nor a .deb, nor a directory",
                "for an image, give its .changes",
                USAGE,
            )
    return list(dict.fromkeys(changes)), list(dict.fromkeys(debs))


def _listed(path: Path) -> tuple[str, str, dict[str, Path]]:
    """Name, text and files of a .changes."""
    what = printable(str(path))
    text = sign.decoded(files.read(path, upload.LARGEST_TEXT), what)
    text = text.rstrip("\n") + "\n"
    try:
        found = upload.changes(text.encode())
    except Error as error:
        raise Error(f"{what}: {error.message}", error.hint) from None
    parts = {one.name: path.parent / one.name for one in found.files}
    for one in found.files:
        if not parts[one.name].is_file():
            raise Error(f"{what} lists {one.name}, which is not beside it", "build it again", USAGE)
    return path.name, text, parts


def _of_debs(paths: Iterable[Path], suite: str) -> Iterator[tuple[str, str, dict[str, Path]]]:
    """Name, text and files of a new .changes for each source package and version of the .debs."""
    sources: dict[tuple[str, str], dict[str, tuple[Path, Stanza]]] = {}
    for path in paths:
        if not path.is_file():
            raise Error(f"there is no file {printable(str(path))}", "give an existing .deb", USAGE)
        try:
            fields = upload.stanza(debfile.control(path), path.name)
            sources.setdefault(upload.origin(fields), {})[upload.file_name(fields)] = path, fields
        except Error as error:
            raise Error(f"{printable(str(path))}: {error.message}", error.hint) from None
    if sources and not suite:
        raise Error("the archive has several suites", "choose the suite of the .debs with --suite SUITE", USAGE)
    for (source, version), found in sources.items():
        digests = {name: checksums.digest(path, _ALGORITHMS) for name, (path, _) in found.items()}
        text = upload.written(suite, {name: fields for name, (_, fields) in found.items()}, digests, formatdate())
        # The name has a hash because packages of one source may be added at different times.
        which = hashlib.sha256("".join(sorted(d.hashes["sha256"] for d in digests.values())).encode()).hexdigest()
        stem = f"{source}_{version.rpartition(':')[2]}_added-{which[:8]}"
        yield f"{stem}.changes", text, {name: path for name, (path, _) in found.items()}


def _is_there(archive: Path, name: str, found: upload.Changes, known: frozenset[str]) -> bool:
    """Whether the archive has an image by this name, or each package of an upload."""
    if all(one.section == upload.IMAGES for one in found.files):
        return any((archive / "public/images").glob(f"{found.suite}/*/*/*/{name}"))
    debs = [one for one in found.files if one.name.endswith(".deb")]
    parts = debs or [one for one in found.files if ".tar." in one.name]
    return all(f"{found.suite} {one.sha256}" in known for one in parts)


def _link(path: Path, target: Path) -> None:
    with contextlib.suppress(OSError):
        os.link(path, target, follow_symlinks=True)
        return
    shutil.copyfile(path, target)


def _sign(folder: Path, name: str, text: str, homedir: Path, key: str) -> None:
    """Sign the .dsc and .buildinfo of an upload, then its .changes, as debsign(1) does."""
    texts = {name: text}
    for suffix in _SIGNED:
        for path in sorted(folder.glob(f"*{suffix}")):
            data = files.read(path, upload.LARGEST_TEXT)
            if openpgp.is_cleartext(data):
                continue
            content = texts.pop(path.name, sign.decoded(data, path.name))
            _clearly(path, content, homedir, key)
            digest = checksums.digest(path, _ALGORITHMS)
            for other in (*folder.glob("*.buildinfo"), folder / name):
                if other == path or (other.exists() and openpgp.is_cleartext(other.read_bytes())):
                    continue
                content = texts.get(other.name) or sign.decoded(files.read(other), other.name)
                texts[other.name] = upload.relisted(content, path.name, digest)
    _clearly(folder / name, texts[name], homedir, key)


def _clearly(path: Path, content: str, homedir: Path, key: str) -> None:
    """Write a signed text to a new file, never into the original that is hard-linked here."""
    plain = path.with_name(f".{path.name}")
    plain.write_text(content, "utf-8")
    path.unlink(missing_ok=True)
    sign.clearly(plain, path, homedir, (key,))
    plain.unlink()
