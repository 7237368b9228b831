# SPDX-License-Identifier: GPL-3.0-or-later
"""Indexes and signatures that no archive may publish, no mirror show and no client accept."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from dataclasses import replace

from debian_cloud.image import index, staleness
from debian_cloud.image.index import Attestation
from debian_cloud.image.machine import Machine
from debian_cloud.text import openpgp
from tests.samples import CONFIG, RECORD


def packed_signatures(times: int) -> bytes:
    """A clear-signed text whose armour unpacks into `times` thousand signatures (RFC 4880, 5.2.3 and 5.6).

    They are not real signatures, but of a kind and version that gpg and gpgv read.
    """
    packet = b"\4\1\x16\x0a\0\6\5\2eS\xf1\0\0\x0a\x09\x10ABCDEFGH\x124" + 2 * (b"\1\0" + b"\xff" * 32)
    content = b"\2" + zlib.compress(1000 * times * (bytes([0xC2, len(packet)]) + packet))
    text = b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\nSuite: trixie\n"
    return text + openpgp.armoured([b"\xc8\xff" + len(content).to_bytes(4, "big") + content])


_ONE = replace(
    RECORD,
    buildinfo_sha256="c" * 64,
    buildinfo_sha512="d" * 128,
    attestations=(Attestation("intoto.json", 812, "e" * 64), Attestation("spdx.json", 9, "f" * 64)),
    rebuilds=(Attestation(f"{'a' * 40}.asc", 812, "1" * 64),),
    status="current",
    machine=replace(Machine.of(CONFIG), memory=2**29),
)
_RAW = replace(_ONE, format="raw", sha256="2" * 64, size=1)
_OLD = replace(
    _ONE,
    id=replace(_ONE.id, serial="20261121.10"),
    status="deprecated",
    status_date="2026-11-22",
    status_reason="größer als nötig",
    cves=("CVE-2026-12345", "CVE-2026-23456"),
    partial=True,
    official=False,
)
_TREE = replace(_ONE, id=replace(_ONE.id, config="nocloud", architecture="arm64"), format="tar.xz", virtual_size=0)
_NEWER_TREE = replace(_TREE, id=replace(_TREE.id, serial="20261121.0"))
IMAGES = index.render([_ONE, _RAW, _OLD, _TREE])
"""A good `Images`: of two formats, one deprecated, with all fields in each form that is written."""
_PENDING = (
    "Image: {}\nPending-Date: 2026-11-21\nPending-Security:\n openssl 3.5.1-1 3.5.4-1~deb13u1\n"
    "Pending:\n tzdata 2026a-0+deb13u1 1:2026b\n"
)
STATUS = staleness.render(
    [_ONE, replace(_OLD, status="withdrawn"), _TREE], staleness.by_image(_PENDING.format(_ONE.directory))
)
"""A good `Images-Status` for the same images."""


def _set(text: str, field: str, value: str) -> str:
    """The text with another value in the first field of that name."""
    changed, count = re.subn(rf"(?m)^{field}:.*$", lambda _: f"{field}: {value}", text, count=1)
    assert count, field
    return changed


def _more(text: str, line: str) -> str:
    """The text with one more line at the end of its first stanza."""
    assert "\n\n" in text
    return text.replace("\n\n", f"\n{line}\n\n", 1)


def _last(text: str) -> str:
    return text.rstrip("\n").rpartition("\n\n")[2] + "\n"


_FORMS: dict[str, Callable[[str], bytes]] = {
    "no UTF-8": lambda text: _more(text, "Later: x").encode().replace(b"Later: x", b"Later: \xe9"),
    "Latin-1 in a value": lambda text: text.encode().replace(b"trixie", b"trixi\xe9", 1),
    "a surrogate in UTF-8": lambda text: (
        _more(text, "Later: x").encode().replace(b"Later: x", b"Later: \xed\xa0\x80")
    ),
    "beyond Unicode": lambda text: _more(text, "Later: x").encode().replace(b"Later: x", b"Later: \xf4\x90\x80\x80"),
    "an overlong octet": lambda text: _more(text, "Later: x").encode().replace(b"Later: x", b"Later: \xc0\xaf"),
    "a NUL": lambda text: _more(text, "Later: \0").encode(),
    "an escape": lambda text: _more(text, "Later: \x1b[2J").encode(),
    "a C1 control": lambda text: _more(text, "Later: \x9b2J").encode(),
    "DEL": lambda text: _more(text, "Later: \x7f").encode(),
    "a tab": lambda text: _more(text, "Later: a\tb").encode(),
    "a carriage return": lambda text: text.replace("\n", "\r\n").encode(),
    "a carriage return within": lambda text: _more(text, "Later: a\rb").encode(),
    "a blank at an end": lambda text: _more(text, "Later: a ").encode(),
    "two blanks before a value": lambda text: _more(text, "Later:  a").encode(),
    "no blank before a value": lambda text: _more(text, "Later:a").encode(),
    "no colon": lambda text: _more(text, "Later").encode(),
    "no name": lambda text: _more(text, ": x").encode(),
    "a name of two words": lambda text: _more(text, "La ter: x").encode(),
    "a name that begins with a number": lambda text: _more(text, "5ater: x").encode(),
    "a comment": lambda text: _more(text, "# x").encode(),
    "a blank line of blanks": lambda text: text.replace("\n\n", "\n \n", 1).encode(),
    "a line that goes on from nothing": lambda text: f" x\n{text}".encode(),
    "a field twice": lambda text: _more(text, "Suite: trixie").encode(),
    "a field twice in another case": lambda text: _more(text, "sUITE: trixie").encode(),
    "an unknown field twice": lambda text: _more(text, "Later: x\nLater: y").encode(),
    "a long line": lambda text: _more(text, "Later: " + "x" * 8192).encode(),
    "a long name": lambda text: _more(text, "x" * 8192 + ": y").encode(),
    "a stanza of many lines": lambda text: _more(text, "Later:" + "\n x" * 4096).encode(),
    "a stanza of many bytes": lambda text: _more(text, "Later:" + f"\n {'x' * 8000}" * 140).encode(),
    "a stanza of many fields": lambda text: _more(text, "\n".join(f"L{n}: x" for n in range(4096))).encode(),
    "many empty lines": lambda text: text.encode() + b"\n" * 2**21,
    "garbage": lambda _text: bytes(range(256)),
}


def _fields(text: str, values: dict[str, tuple[str, ...]]) -> dict[str, str]:
    return {
        f"{field}: {value[:40]!r} of {len(value)}": _set(text, field, value)
        for field, some in values.items()
        for value in some
    }


_SAME = {
    "Image": ("base-files", "debian-cloud-config-", "debian-cloud-config-../x", "Debian-Cloud-Config-ec2"),
    "Version": (
        *(
            "20261120",
            "20261120.01",
            "today",
            "99999999.0",
            "20260230.0",
            "20250229.0",
            "20261120.99999",
            "00000101.0",
        ),
        *("20261120.-1", "20261120.0x", "2026112.00"),
    ),
    "Suite": ("../trixie", "a..b", "Trixie", "trixie x", "-x", "é"),
    "Architecture": ("amd64/..", "", "amd64 arm64"),
    "Status": ("fine", "Current", "current superseded", "yanked", "", "-"),
}
BAD_IMAGES: dict[str, bytes] = {name: make(IMAGES) for name, make in _FORMS.items()} | {
    name: text.encode()
    for name, text in {
        **_fields(
            IMAGES,
            {
                **_SAME,
                "Firmware": (
                    "bios  uefi",
                    "../x",
                    "x" * 65,
                    "é",
                    " ".join(f"w{n}" for n in range(33)),
                    "bios\n uefi",
                ),
                "User": ("admin root", "$(x)", "-x", "admin\tx"),
                "Memory": ("512", "0M", "many", "512M 1G", "9999999T"),
                "Format": ("qcow2/../x", "", "QCOW2", "buildinfo", "intoto.json", "x" * 250),
                "Config-Version": ("1 2", "", "1:2:3", ":1", "a:1", "x" * 300, "1234567890:1"),
                "Filename": (
                    "images/trixie/ec2/amd64/20261120.0/../../../../../etc/passwd",
                    "/etc/passwd",
                    "images/trixie/ec2/amd64/20261121.0/debian-13-ec2-amd64-20261120.0.qcow2",
                    "images/trixie/ec2/amd64/20261120.0/debian-12-ec2-amd64-20261120.0.qcow2",
                    "images/trixie/ec2/amd64/20261120.0/debian-13-ec2-amd64-20261120.0.raw",
                    "pool/x",
                ),
                "Buildinfo": ("/etc/passwd", "images/trixie/ec2/amd64/20261120.0/x.buildinfo"),
                "Size": ("0", "-1", "1e9", "9" * 40, str(10**18), str(2**40 + 1), "0x10", "", "+1", "1.0", "\u0661"),
                "Virtual-Size": ("-1", str(10**17), str(2**46 + 1), "8G", ""),
                "SHA256": ("A" * 64, "a" * 63, "a" * 65, "g" * 64, ""),
                "SHA512": ("a" * 64, "B" * 128, ""),
                "Buildinfo-SHA256": ("c" * 63, "-"),
                "Buildinfo-SHA512": ("d" * 127, "-"),
                "Status-Date": ("today", "2026-02-30", "20261120", "2026-11-20 x"),
                "CVEs": ("x", "CVE-2026-123", "CVE-2026-12345,CVE-2026-23456", "cve-2026-12345"),
                "Partial": ("no", "Yes"),
                "Official": ("maybe", "No"),
            },
        ),
        **{
            f"no {field}": re.sub(rf"(?m)^{field}: .*\n", "", IMAGES, count=1)
            for field in (
                *("Image", "Version", "Suite", "Architecture", "Format", "Config-Version", "Filename", "Size"),
                *("Virtual-Size", "SHA256", "SHA512", "Buildinfo"),
            )
        },
        "SHA512 by another name alone": re.sub("(?m)^SHA512: ", "Sha512: ", IMAGES, count=1),
        "Sha512 beside SHA512": _more(IMAGES, f"Sha512: {'9' * 128}"),
        "other sources of an official image": IMAGES.replace(
            "Official: no", "Other-Sources: https://d.example/x stable", 1
        ),
        **{
            f"other sources {value}": IMAGES.replace("Official: no", f"Official: no\nOther-Sources: {value}", 1)
            for value in (
                "x",
                "https://d.example/x",
                "ftp://d.example/x y",
                "https://d.example/x y,https://e.example/ z",
            )
        },
        "two lines of Suite": IMAGES.replace("Suite: trixie", "Suite: trixie\n Filename: /etc/passwd", 1),
        "two lines of Status-Reason": IMAGES.replace("als nötig", "als\n nötig", 1),
        "one file with two hashes": IMAGES + "\n" + re.sub("(?m)^SHA512: .*", f"SHA512: {'9' * 128}", _last(IMAGES)),
        "one file twice": IMAGES + "\n" + _last(IMAGES),
        "two serials that are current": IMAGES + "\n" + index.render([_NEWER_TREE]),
        "two formats that disagree on the .buildinfo": index.render([_ONE, replace(_RAW, buildinfo_sha256="3" * 64)]),
        "two formats that disagree on the .buildinfo's SHA-512": index.render(
            [_ONE, replace(_RAW, buildinfo_sha512="3" * 128)]
        ),
        "two formats, one of which has no hashes of the .buildinfo": index.render(
            [_ONE, replace(_RAW, buildinfo_sha256="", buildinfo_sha512="")]
        ),
        "two formats, one of which has no SHA-512 of the .buildinfo": index.render(
            [_ONE, replace(_RAW, buildinfo_sha512="")]
        ),
        "two formats that disagree on a rebuild": index.render(
            [_ONE, replace(_RAW, rebuilds=(replace(_ONE.rebuilds[0], sha256="3" * 64),))]
        ),
        "two formats that disagree on an attestation": index.render(
            [_ONE, replace(_RAW, attestations=(replace(_ONE.attestations[1], sha256="3" * 64),))]
        ),
        "two formats that disagree on a size": index.render(
            [_ONE, replace(_RAW, attestations=(replace(_ONE.attestations[1], size=8),))]
        ),
        "a format that another attests": index.render(
            [replace(_ONE, attestations=(Attestation("raw", 8, "3" * 64),)), _RAW]
        ),
        **{
            f"attestation {number}: {line[-60:]!r}": IMAGES.replace("Attestations:\n", f"Attestations:\n {line}\n", 1)
            for number, line in enumerate(
                (
                    f"{'7' * 64} 812 /etc/passwd",
                    f"{'7' * 64} 812 {_ONE.directory}/x",
                    f"{'7' * 64} 812 {_ONE.directory}/{_ONE.stem}.a/b",
                    f"{'7' * 64} 812 {_ONE.directory}/{_ONE.stem}.a..b",
                    f"{'7' * 64} 812 {_ONE.directory}/{_ONE.stem}.",
                    f"{'7' * 64} 812 {_ONE.directory}/{_ONE.stem}.{'x' * 240}",
                    f"{'7' * 64} 812 {_OLD.directory}/{_OLD.stem}.x",
                    f"{'7' * 64} -1 {_ONE.directory}/{_ONE.stem}.x",
                    f"{'7' * 64} 0 {_ONE.directory}/{_ONE.stem}.x",
                    f"{'7' * 64} {10**18} {_ONE.directory}/{_ONE.stem}.x",
                    f"{'7' * 64} - {_ONE.directory}/{_ONE.stem}.x",
                    f"{'7' * 63} 812 {_ONE.directory}/{_ONE.stem}.x",
                    f"{'A' * 64} 812 {_ONE.directory}/{_ONE.stem}.x",
                    f"{'7' * 64} 812  {_ONE.directory}/{_ONE.stem}.x",
                    f"{'7' * 64} 812 {_ONE.directory}/{_ONE.stem}.x more",
                    f"{'7' * 64} 812 {_ONE.directory}/{_ONE.stem}.qcow2",
                    f"{'7' * 64} 812 {_ONE.directory}/{_ONE.stem}.buildinfo",
                    f"{'7' * 64} 812 {_ONE.directory}/{_ONE.stem}.spdx.json",
                    f" {'7' * 64} 812 {_ONE.directory}/{_ONE.stem}.x",
                )
            )
        },
        "attestations on the first line": IMAGES.replace("Attestations:\n", "Attestations:", 1),
        **{
            f"rebuild {number}: {line[-60:]!r}": IMAGES.replace("Rebuilds:\n", f"Rebuilds:\n {line}\n", 1)
            for number, line in enumerate(
                (
                    f"{'7' * 64} 812 {_ONE.directory}/x",
                    f"{'7' * 64} 812 {_OLD.rebuilds_directory}/x",
                    f"{'7' * 64} 812 {_ONE.rebuilds_directory}/x/y",
                    f"{'7' * 64} 812 {_ONE.rebuilds_directory}/{'A' * 40}.asc",
                    f"{'7' * 64} 812 {_ONE.rebuilds_directory}/{'a' * 40}.asc",
                )
            )
        },
    }.items()
}
"""What is wrong -> an `Images` in which it is wrong."""
BAD_STATUS: dict[str, bytes] = {name: make(STATUS) for name, make in _FORMS.items()} | {
    name: text.encode()
    for name, text in {
        **_fields(
            STATUS,
            {
                **_SAME,
                "Status-Date": ("today", "2026-02-30"),
                "Pending-Date": ("today", "2026-02-30", ""),
                "CVEs": ("x", "CVE-2026-123"),
            },
        ),
        **{
            f"no {field}": re.sub(rf"(?m)^{field}: .*\n", "", STATUS, count=1)
            for field in ("Image", "Version", "Suite", "Architecture", "Status")
        },
        **{
            f"update {line!r}": STATUS.replace(" openssl 3.5.1-1 3.5.4-1~deb13u1", line)
            for line in (
                " openssl 3.5.4",
                " openssl  1 2",
                " openssl 1 2 3",
                " Openssl 1 2",
                " o 1 2",
                " openssl 1 :",
                " openssl 1 a:1",
                f" openssl 1 {'2' * 300}",
                f" {'x' * 256} 1 2",
            )
        },
        "updates on the first line": STATUS.replace("Pending:\n", "Pending:", 1),
        "one image twice": STATUS + "\n" + _last(STATUS),
        "one image current and withdrawn": STATUS
        + "\n"
        + _last(STATUS).replace("Status: current", "Status: withdrawn"),
        "two serials that are current": STATUS + "\n" + _set(_last(STATUS), "Version", "20261121.0"),
        "two lines of Status-Reason": STATUS.replace("als nötig", "als\n nötig", 1),
    }.items()
}
"""What is wrong -> an `Images-Status` in which it is wrong."""
EDGES: dict[str, bytes] = {
    "nothing": b"",
    "an empty line": b"\n",
    "no line end": IMAGES.rstrip("\n").encode(),
    "empty lines": f"\n\n{IMAGES}\n\n\n".encode(),
    "a field of a newer archive": _more(IMAGES, "Later: x:y  z\nLater-Still:\n one\n  two\nNothing:").encode(),
    "a line that is just not too long": _more(IMAGES, "Later: " + "x" * 8185).encode(),
    "the largest sizes": _set(_set(IMAGES, "Size", str(2**40)), "Virtual-Size", str(2**46)).encode(),
    "marks of direction, to be shown as such": IMAGES.replace("größer", "\u202egrößer").encode(),
    "a leap day": IMAGES.replace("20261121.10", "20280229.10").encode(),
    "a suite that is not a release": IMAGES.replace("trixie", "sid").replace("debian-13-", "debian-sid-").encode(),
    "a configuration named after one": IMAGES.replace("nocloud", "debian-cloud-config-x").encode(),
}
"""Edge cases that archive, mirror and clients accept."""
