# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove an image: who signed what it was made of, and that this makes the same image, byte for byte.

The .buildinfo is verified first, by the archive's signed sums or its own signature (unless `--unsigned` was given),
then the file's SHA-256, before anything of it is parsed, and its name, which must not be another image's. If the file
is a raw disk or a tar that was unpacked from a published file, all its bytes are compared, and the report says that
it is not the published file. What the archive says of the image (current, superseded, withdrawn) comes from apt's
verified indexes or from a copy of the archive, whose InRelease must be valid today and not of a snapshot.

Each package is traced from its SHA-256 to an index, a signed release file and a key, offline, by the evidence in the
closure, which must have each of Debian's suites of the image. Then the image is rebuilt from the closure, in the same
format, and the two files must be equal. Each path of the rebuild must be what a package ships (on the EFI system
partition a copy of it, identified by its content), or be in the closed list `image.generated`.
"""

from __future__ import annotations

import itertools
import re
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from debian_cloud import names
from debian_cloud.build import request, store, workspace
from debian_cloud.disk import layout
from debian_cloud.disk.opened import (
    DISKS,
    QCOW2,
    RAW,
    TAR,
    DiskImage,
    TreeImage,
    bytes_of,
    format_of,
    kind,
    known,
    opened,
    unpacked,
)
from debian_cloud.errors import USAGE, Error
from debian_cloud.formats import SHA256
from debian_cloud.host import checksums, progress, run
from debian_cloud.image import closure
from debian_cloud.packages import described, evidence, manifest
from debian_cloud.proof import bundle, trust, verification
from debian_cloud.proof.verification import Explained, Unexplained
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from debian_cloud.formats import Algorithm
    from debian_cloud.image.buildinfo import Buildinfo
    from debian_cloud.image.entries import Entry
    from debian_cloud.image.resolution import Package
    from debian_cloud.packages.evidence import Proof, Word
    from debian_cloud.proof.trust import Trust

_SERIAL = re.compile(r"(?<![0-9])[0-9]{8}\.[0-9]+")
"""The serial of an image in the name of a file."""
_RELEASE = "etc/cloud-release"
"""The file in which an image says which one it is."""
_LONGEST = 200
"""Most bytes of that file that are read."""


@dataclass(frozen=True, slots=True)
class Given:
    """The files to prove an image with; those not given are looked for beside it, or not used.

    `closure` is the directory of its closure, `archive` a copy of its archive, `rebuilt` a rebuild of it in the same
    format, and `seed` the file of the seed that it was made with. If the image is made again, layers in the cache may
    take `bound` bytes; if that is 0, none is used.
    """

    buildinfo: Path | None = None
    closure: Path | None = None
    archive: Path | None = None
    rebuilt: Path | None = None
    seed: Path | None = None
    bound: int = store.BOUND


NOTHING: Final = Given()
"""All files are beside the image."""


@dataclass(frozen=True, slots=True)
class File:
    """The image's file as it was read; `described` is the name that the .buildinfo has for these bytes, if any.

    `algorithm` is that of `digest`: SHA256, unless the .buildinfo identifies the file by its blocks.

    `converted` is set if the .buildinfo does not have its format, so that the content of the disk is compared.
    """

    algorithm: Algorithm
    digest: str
    size: int
    described: str = ""
    converted: bool = False


@dataclass(frozen=True, slots=True)
class Identified:
    """Which image a file is: its .buildinfo, where that is, its signers, the file, and what an archive says of it."""

    place: Path
    buildinfo: Buildinfo
    file: File
    signers: tuple[str, ...]
    word: Word | None


@dataclass(frozen=True, slots=True)
class Report:
    """All verdicts on one image; `seconds` is by stage, `signers` has fingerprints of the .buildinfo's signers."""

    buildinfo: Buildinfo
    proofs: Mapping[Package, Proof]
    seconds: dict[str, float]
    signers: tuple[str, ...]
    rebuilders: tuple[str, ...] = ()
    explained: tuple[Explained, ...] = ()
    unexplained: tuple[Unexplained, ...] = ()
    more: int = 0
    """How many more are unexplained."""
    file: File | None = None
    word: Word | None = None


def verify(
    image: Path, trusted: Trust, given: Given = NOTHING, *, diagnose: bool = False, quiet: bool = True
) -> Report:
    """Return a verdict on each path; raise Error if the .buildinfo, the packages or the file are not as signed.

    With `diagnose`, a file that the .buildinfo does not describe is compared anyway. `refuse` decides by the report
    whether the image may be started.
    """
    began = time.monotonic()
    seconds: dict[str, float] = {}

    def done(what: str) -> None:
        nonlocal began
        seconds[what] = round(time.monotonic() - began, 1)
        began = time.monotonic()

    if trusted.signers < 1:
        raise Error(f"--signers {trusted.signers} has no effect", "give 1 or more: a signature is required", USAGE)
    if not given.rebuilt:
        # Check this before anything is read: the image will be rebuilt.
        run.check_namespace()
    beside = _buildinfo(image, trusted, given)
    folder = given.closure or _closure(image, trusted, beside)
    found = trust.believed(beside, trusted)
    buildinfo = found.buildinfo
    file = _identified(image, buildinfo, diagnose=diagnose)
    rebuilders: tuple[str, ...] = ()
    if trusted.rebuilders:
        # For a converted file, any file of the image counts: all bytes of the disk are also compared.
        files = [file.described] if file.described else [*buildinfo.digests]
        demanded = {name: (buildinfo.algorithm(name), buildinfo.digests[name][0]) for name in files}
        rebuilders = trust.rebuilders(trusted.rebuilders, demanded)
    word = (
        evidence.of_archive(given.archive, buildinfo, found.keyring, signers=trusted.signers)
        if given.archive
        else evidence.of_machine(buildinfo.id)
    )
    done("image")
    proofs = evidence.proofs(
        *(folder / "evidence", buildinfo, trusted.debian, found.keyring),
        signers=trusted.signers,
        others=trusted.others,
    )
    report = Report(buildinfo, proofs, seconds, found.signers, rebuilders, file=file, word=word)
    done("signatures and indexes")
    # Report a file that is not an image before reading a hundred packages; read the rest of it after the rebuild.
    form = _format(image, buildinfo)
    wanted = "tar.xz" if form == TAR else form
    shipped = manifest.by_path((p.name, entries) for p, entries in _manifests(folder, buildinfo).items())
    done("packages")
    if given.rebuilt:
        return _compared(image, shipped, _of_format(given.rebuilt, wanted, form), report)
    planned = request.again(buildinfo, found.keyring, closure=str(folder), seed=given.seed, wanted=(wanted,))
    with workspace.scratch(buildinfo.stem) as made:
        workspace.make(planned, made, progress.shown(quiet=quiet), bound=given.bound)
        done("made again")
        return _compared(image, shipped, made / buildinfo.id.file(wanted), report)


def identified(image: Path, trusted: Trust) -> Identified:
    """Identify an image by its .buildinfo alone: that is much less than `verify`, and takes a second.

    Raise Error if the .buildinfo is not signed by whom `trusted` names, or does not describe the file. If it need not
    be signed, no signature is verified, and no key is needed.
    """
    place = _buildinfo(image, trusted, NOTHING)
    believed = None if trusted.unsigned else trust.believed(place, trusted)
    buildinfo = believed.buildinfo if believed else described.of(place)
    signers = believed.signers if believed else ()
    file = _identified(image, buildinfo)
    if not file.described:
        raise Error(
            f"{printable(image.name)} is not the file that the .buildinfo of {buildinfo.stem} describes",
            "give it in a format in which it was built or published",
        )
    return Identified(place, buildinfo, file, signers, evidence.of_machine(buildinfo.id))


def refuse(image: Path, report: Report) -> None:
    """Raise Error if, by its report, an image must not be started."""
    if report.unexplained:
        number = len(report.unexplained) + report.more
        raise Error(
            f"{image.name} is not made only of signed packages: {number} unexplained",
            "do not start it; compare it by diffoscope(1) with the result of `debian-cloud rebuild --output`",
        )
    if report.file:
        # After --diagnose, even if all paths are explained.
        _refuse_undescribed(image, report.buildinfo, report.file)
    said = report.word.said if report.word else None
    if said and said.status == "withdrawn":
        raise Error(
            f"{report.buildinfo.stem} was withdrawn by its archive: {printable(said.reason)}",
            "use a newer image, although each byte of this one is as its .buildinfo says",
        )


def _format(image: Path, buildinfo: Buildinfo) -> str:
    """Return the format of an image; raise Error if only one of it and its .buildinfo is of a disk."""
    kind = format_of(image)
    if (kind in DISKS) != any(one in DISKS for one in buildinfo.formats):
        raise Error(
            f"{image.name} is not the image of that .buildinfo: it is a {kind}, not a {buildinfo.formats[0]}",
            "give the image's own .buildinfo with --buildinfo",
        )
    return kind


def _of_format(rebuilt: Path, wanted: str, kind: str) -> Path:
    """Return the rebuild in the format of the image: the given file, or the one beside it."""
    other = format_of(rebuilt)
    if other == kind or (other == wanted and kind == TAR) or (kind == RAW and other == QCOW2):
        return rebuilt
    beside = rebuilt.with_name(f"{rebuilt.name.removesuffix(f'.{other}')}.{wanted}")
    if not beside.is_file():
        raise Error(
            f"{rebuilt} is a {other}, but the image is a {kind}",
            f"give the .{wanted} that `rebuild --output` creates: the files are compared",
            USAGE,
        )
    return beside


def _buildinfo(image: Path, trusted: Trust, given: Given) -> Path:
    """Return the image's .buildinfo: the one given, else the one beside it."""
    if given.buildinfo:
        return given.buildinfo
    _refuse_no_file(image)
    folders = [folder for folder in (bundle.beside(image), image.parent) if folder]
    found = [path for path in folders[0].glob("*.buildinfo") if image.name.startswith(f"{path.stem}.")]
    if len(found) != 1:
        raise Error(f"{image} has no .buildinfo beside it", "give it with --buildinfo", USAGE)
    return found[0] if trusted.said else bundle.published(found[0])


def _refuse_no_file(image: Path) -> None:
    if not image.is_file():
        raise Error(f"there is no file {printable(str(image))}", f"give an image: {known()}", USAGE)


def _closure(image: Path, trusted: Trust, buildinfo: Path) -> Path:
    """Return the image's closure, beside it or in the user's own archive here; raise Error if there is none."""
    folder = bundle.beside(image)
    if folder and (folder / names.CLOSURE).is_dir():
        return folder / names.CLOSURE
    if not trusted.keyring and (found := bundle.own_closure(buildinfo)):
        return found
    raise Error(
        f"the closure of {printable(image.name)} is not beside it",
        "fetch it with `debian-cloud fetch --proof`, or give it with --closure",
        USAGE,
    )


def _identified(image: Path, buildinfo: Buildinfo, *, diagnose: bool = False) -> File:
    """Identify the image's file by its bytes; raise Error if it is not as described, or has another image's name."""
    _refuse_no_file(image)
    serials = _SERIAL.findall(image.name)
    ours = image.name.startswith("debian-") and serials
    if {*serials} - {buildinfo.id.serial} or (ours and buildinfo.stem not in image.name):
        raise Error(
            f"{printable(image.name)} has the name of another image than its .buildinfo describes, {buildinfo.stem}",
            "get both from the archive: an older image may have been renamed",
        )
    file = _file(image, buildinfo)
    if not diagnose:
        _refuse_undescribed(image, buildinfo, file)
    return file


def _file(image: Path, buildinfo: Buildinfo) -> File:
    """Compare the bytes of an image's file with a .buildinfo."""
    size = image.stat().st_size
    of_that_size = {buildinfo.algorithm(name) for name, (_, found) in buildinfo.digests.items() if found == size}
    # The last one tried is the one to be shown.
    for algorithm in (*(of_that_size - {SHA256}), SHA256):
        got = checksums.digest(image, (algorithm,))
        found = (got.hashes[algorithm], got.size)
        for name, digest in buildinfo.digests.items():
            if digest == found and buildinfo.algorithm(name) == algorithm:
                return File(algorithm, *found, name)
    return File(SHA256, *found, converted=kind(image) not in ("", *buildinfo.formats))


def _refuse_undescribed(image: Path, buildinfo: Buildinfo, file: File) -> None:
    if not file.described and not file.converted:
        raise Error(
            f"{printable(image.name)} is not the file that the .buildinfo of {buildinfo.stem} describes",
            "it was changed, or is another image: get it again, or see what differs with --diagnose",
        )


def _manifests(folder: Path, buildinfo: Buildinfo) -> dict[Package, tuple[Entry, ...]]:
    debs = {package: folder / closure.filename(package) for package in buildinfo.packages}
    # No package is unpacked before all are known to be the signed ones.
    for package, path in debs.items():
        if not path.is_file():
            raise Error(f"the closure has no {package.name} {package.version}", f"{path} is missing: get it again")
        _refuse_other(package, path, checksums.digest(path, ("sha256",)).hashes["sha256"])
    found = {}
    for package, (sha256, shipped) in manifest.read_all(debs).items():
        _refuse_other(package, debs[package], sha256)
        found[package] = shipped
    return found


def _refuse_other(package: Package, deb: Path, sha256: str) -> None:
    if sha256 != package.sha256:
        raise Error(
            f"the closure's {package.name} {package.version} is not the signed one",
            f"{deb} has the SHA-256 {sha256}",
        )


def _compared(image: Path, shipped: verification.Shipped, rebuilt: Path, report: Report) -> Report:
    """Return the report with a verdict on everything in the image."""
    began = time.monotonic()
    tally, explained = verification.Tally(), list[Explained]()
    kind = format_of(image)
    file = report.file
    described = bool(file and (file.described or file.converted))
    with opened(rebuilt) as again:
        with bytes_of(image) as given, bytes_of(rebuilt) as made:
            same = not any(verification.differing(given, made if kind == again.format else again.view))
        if same:
            # The image is not read again: its paths are those of the rebuild.
            verdicts = _verdicts(again, shipped, again)
        else:
            verdicts = verification.readable(image.name, lambda: _diagnosis(image, shipped, again))
        if not same or not described:
            why = "this is not the image of that .buildinfo"
            if file and file.described:
                why = "this is the image of that .buildinfo, but its packages make another image"
            tally.add(Unexplained(image.name, why, verification.IMAGE))
        for verdict in verdicts:
            if isinstance(verdict, Explained):
                explained.append(verdict)
            else:
                tally.add(verdict)
    report.seconds["image"] = round(report.seconds.get("image", 0) + time.monotonic() - began, 1)
    return replace(
        report,
        explained=tuple(explained),
        unexplained=tally.first,
        more=tally.total - len(tally.first),
    )


def _verdicts(
    image: DiskImage | TreeImage, shipped: verification.Shipped, again: DiskImage | TreeImage
) -> Iterator[Explained | Unexplained]:
    """Yield a verdict on each path."""
    expected = tuple(again.entries())
    yield from verification.readable(
        "root file system",
        lambda: verification.verify(expected if image is again else image.entries(), shipped, expected),
    )
    if isinstance(image, DiskImage) and isinstance(again, DiskImage):
        esp = layout.ESP.rstrip(": ")
        yield from verification.readable(esp, partial(verification.verify_esp, image, shipped, again))


def _diagnosis(
    path: Path, shipped: verification.Shipped, again: DiskImage | TreeImage
) -> Iterator[Explained | Unexplained]:
    """Yield what was changed in an image that differs from the rebuild, as far as it can be read."""
    # An image with more data than the rebuild must be readable, but not one without limit.
    with unpacked(path, 2 * again.view.size) as (kind, view):
        image: DiskImage | TreeImage
        if isinstance(again, DiskImage):
            # A different partition table is reported with the other bytes; assume the rebuild's partitions.
            image = DiskImage(path.name, kind, view)
            if not image.has_table:
                image = DiskImage(path.name, kind, view, again.table)
        else:
            image = TreeImage(path.name, kind, view)
        if (own := _release(image)) and own != (expected := _release(again)):
            yield Unexplained(path.name, f"it says that it is {own}, not {expected}", verification.IMAGE)
        told, places = set[str](), False
        for verdict in _verdicts(image, shipped, again):
            if isinstance(verdict, Unexplained):
                told.add(verdict.path)
            yield verdict
        for place in verification.beside(image, again, told):
            places = True
            yield place
        if not told and not places:
            yield Unexplained(path.name, f"its content equals the rebuild, but its bytes as a {kind} do not")


def _release(image: DiskImage | TreeImage) -> str:
    """Return which image an image says that it is."""
    try:
        said = b"".join(itertools.islice(image.pieces(_RELEASE), 1))[:_LONGEST]
    except Exception:
        # The read error is reported with its paths.
        return ""
    return " ".join(said.decode("utf-8", "replace").split())
