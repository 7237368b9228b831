# SPDX-License-Identifier: GPL-3.0-or-later
"""Addition of cosigners' signatures to the release files that an archive publishes.

Cosigners' keys are in a second keyring of the keyring package, which apt does not read: apt needs the archive's own
signature, and a cosigner's is never enough. `--signers M` counts primary keys with a good signature.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.errors import USAGE, Error
from debian_cloud.host import files, sign
from debian_cloud.text import openpgp

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(frozen=True, slots=True)
class Added:
    """A good signature: the directory of public/, the file's name, and the signer's fingerprint."""

    place: Path
    name: str
    signer: str


def add(public: Path, output: Path, given: Iterable[Path], keyring: Path) -> Iterator[Added]:
    """Add the signatures in files to the published release files; if all are good, write what changes below `output`.

    Error at the first signature that is not by a key of the keyring.
    """
    folders = sorted(public.glob("dists/*/")) + sorted(public.glob("snap/*/dists/*/"), reverse=True)
    releases = [_ReleaseFile(folder) for folder in folders if (folder / "InRelease").is_file()]
    with tempfile.TemporaryDirectory(prefix="debian-cloud.") as name:
        for file in given:
            for release, signer in _added(file, releases, keyring, Path(name)):
                yield Added(release.folder.relative_to(public), file.name, signer)
    for release in releases:
        _write(release, public, output)


@dataclass(slots=True)
class _ReleaseFile:
    """A published Release, and the new signatures for it."""

    folder: Path
    clear: list[bytes] = field(default_factory=list)
    detached: list[bytes] = field(default_factory=list)

    def signed(self) -> openpgp.Cleartext:
        return openpgp.cleartext(files.read(self.folder / "InRelease"))


def _added(file: Path, releases: list[_ReleaseFile], keyring: Path, work: Path) -> list[tuple[_ReleaseFile, str]]:
    """The Release and the signer of each signature in a file; Error if one is not a cosigner's."""
    try:
        data = files.read(file)
        clear = openpgp.is_cleartext(data)
        packets = openpgp.cleartext(data).signatures if clear else openpgp.signatures(data)
        openpgp.refuse_weak(packets)
    except Error as error:
        if error.status == USAGE:
            raise
        raise Error(f"{file} adds no signature: {error.message}", error.hint) from None
    release = _of_clear(file, openpgp.cleartext(data), releases) if clear else None
    added = []
    for packet in packets:
        candidates = [release] if release else releases
        for candidate in candidates:
            signer = _signer(candidate, packet, keyring, work, clear=clear)
            if signer:
                _add(candidate, packet, signer, keyring, work, clear=clear)
                added.append((candidate, signer))
                break
        else:
            raise Error(
                f"{file} has a signature that is not by a cosigner, or not of a published Release",
                "conf/keys lists the cosigners; they must sign dists/SUITE/Release as it is published now",
            )
    return added


def _of_clear(file: Path, signed: openpgp.Cleartext, releases: list[_ReleaseFile]) -> _ReleaseFile:
    content = signed.content
    for release in releases:
        if release.signed().content == content:
            return release
    named = openpgp.field(content, "Codename") or "no suite"
    date = openpgp.field(content, "Date") or "no date"
    raise Error(
        f"{file} does not sign a published Release, but {named} of {date}",
        "sign dists/SUITE/Release as it is published now",
    )


def _signer(release: _ReleaseFile, packet: bytes, keyring: Path, work: Path, *, clear: bool) -> str:
    """The signer of a packet that is a good signature of the release; empty if no key of the keyring made it."""
    signature = work / "signature"
    try:
        if clear:
            signature.write_bytes(openpgp.Cleartext(release.signed().text, (packet,)).document())
            return sign.verified(keyring, signature).signers[0]
        signature.write_bytes(openpgp.armoured((packet,)))
        return sign.verified(keyring, release.folder / "Release", signature).signers[0]
    except Error:
        return ""


def _add(release: _ReleaseFile, packet: bytes, signer: str, keyring: Path, work: Path, *, clear: bool) -> None:
    """Add a signature, unless the same key has signed already."""
    if clear:
        shown, coming = release.signed().signatures, release.clear
    else:
        shown, coming = openpgp.signatures((release.folder / "Release.gpg").read_bytes()), release.detached
    if not any(_signer(release, other, keyring, work, clear=clear) == signer for other in (*shown, *coming)):
        coming.append(packet)


def _write(release: _ReleaseFile, public: Path, output: Path) -> None:
    if not release.clear and not release.detached:
        return
    target = output / release.folder.relative_to(public)
    target.mkdir(parents=True)
    before = (release.folder / "InRelease").read_bytes()
    signed = release.signed()
    signed = openpgp.Cleartext(signed.text, (*signed.signatures, *release.clear))
    after = signed.document() if release.clear else before
    shown = openpgp.signatures((release.folder / "Release.gpg").read_bytes())
    (target / "InRelease").write_bytes(after)
    (target / "Release").write_bytes((release.folder / "Release").read_bytes())
    (target / "Release.gpg").write_bytes(openpgp.armoured((*shown, *release.detached)))
    for kept in public.glob("closures/*/*/*/*/evidence/*/InRelease"):
        if kept.stat().st_size == len(before) and kept.read_bytes() == before:
            copy = output / kept.relative_to(public)
            copy.parent.mkdir(parents=True)
            copy.write_bytes(after)
