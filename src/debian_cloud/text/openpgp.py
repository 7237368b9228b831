# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenPGP's form of signatures: packets, armour and the cleartext framework (RFC 9580; no cryptography).

gpgv(1) finds a signed text in the middle of a file, accepts an OpenPGP message in its place, and ignores unknown
lines; another reader of the same file may then read text that is not signed. So `cleartext` is the only reader of
such files (`tests/test_trust.py` has the table).
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import Error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MESSAGE: Final = b"-----BEGIN PGP SIGNED MESSAGE-----"
_BEGIN: Final = b"-----BEGIN PGP SIGNATURE-----"
_END: Final = b"-----END PGP SIGNATURE-----"
_MARKS: Final = (b"-----BEGIN PGP", b"-----END PGP")
"""What other readers may take for a line of OpenPGP, anywhere in a text."""
_HASH: Final = re.compile(rb"Hash: [A-Za-z0-9-]+(, ?[A-Za-z0-9-]+)*")
_HEADER: Final = re.compile(rb"(Version|Comment): [ -~]*")
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/]{1,76}={0,2}")
_CHECKSUM: Final = re.compile(rb"=[A-Za-z0-9+/]{4}")
_ODD: Final = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\xa8\xa9]")
"""Control characters except tabs and line feeds, and other characters that end a line for some readers (UTF-8)."""
_HEADERS: Final = 16
"""Maximum number of header lines of an armour."""
_LARGEST: Final = 2**16
"""Maximum octets of all signatures of a text; one takes a few hundred."""
_MOST_LINES: Final = 2**17
"""Maximum lines of a signed text: the largest, an index of Debian's, has a few thousand."""

_HASHES: Final = {8: "SHA256", 9: "SHA384", 10: "SHA512"}
"""Hash algorithms by number (RFC 9580, 9.5), without those that apt considers weak."""
_SIGNATURE: Final = 2
"""Type of a signature packet (RFC 9580, 5)."""


@dataclass(frozen=True, slots=True)
class Cleartext:
    """A clear-signed text and its signatures: `text` has no last line end, which is not signed."""

    text: bytes
    signatures: tuple[bytes, ...]

    @property
    def content(self) -> bytes:
        """The signed text: without blanks at the ends of lines, which are not signed, and with dashes unescaped."""
        lines = (line.removeprefix(b"- ").rstrip(b" \t") for line in self.text.split(b"\n"))
        return b"\n".join(lines)

    def document(self) -> bytes:
        """The signed text with one armour for all signatures, and nothing else; Error if one of them is weak."""
        hashes = ",".join(dict.fromkeys(_hash(packet) for packet in self.signatures))
        text = b"\n".join(b"- " + line if line.startswith(b"-") else line for line in self.content.split(b"\n"))
        return b"%s\nHash: %s\n\n%s\n%s" % (_MESSAGE, hashes.encode(), text, armoured(self.signatures))


def is_cleartext(data: bytes) -> bool:
    """Whether it is a clear-signed document, not only signatures."""
    return data.startswith(_MESSAGE)


def cleartext(data: bytes) -> Cleartext:
    """Read a clear-signed document (RFC 9580, 7); Error for all that two readers may read in two ways.

    There must be nothing before or after the document, and nothing but `Hash:` before its text; each dash that begins
    a line of the text must be escaped; one armour must follow, with only signatures in it. A control character is
    refused anywhere, including a carriage return. gpgv(1) and gpg(1) accept more.
    """
    # Each line takes more memory than it has octets.
    if data.count(b"\n") > _MOST_LINES:
        raise _bad(f"it has more than {_MOST_LINES} lines")
    _refuse_odd(data)
    lines = data.removesuffix(b"\n").split(b"\n")
    if lines[0] != _MESSAGE:
        raise _bad("it does not begin with the line of a signed text")
    start = next((number for number, line in enumerate(lines[1:], 1) if not _HASH.fullmatch(line)), len(lines))
    if lines[start : start + 1] != [b""] or start > _HEADERS:
        raise _bad("it has other lines than Hash: before its text")
    start += 1
    dashes = (n for n, line in enumerate(lines[start:], start) if line[:1] == b"-" and line[:2] != b"- ")
    end = next(dashes, len(lines))
    if lines[end : end + 1] != [_BEGIN] or end == start:
        raise _bad("its text does not end at a signature")
    return Cleartext(b"\n".join(lines[start:end]), _armour(lines[end:]))


def inner(data: bytes) -> bytes:
    """The text of a file that may be clear-signed: the signed text, or else all of it.

    Error if it is neither; signatures are not verified.
    """
    if is_cleartext(data):
        return cleartext(data).content + b"\n"
    _refuse_odd(data)
    if any(mark in data for mark in _MARKS):
        raise _bad("it has other text before its signed text")
    return data


def signatures(data: bytes) -> tuple[bytes, ...]:
    """The signature packets of a detached signature, armoured or binary; Error if it has anything else."""
    if len(data) > 4 * _LARGEST:
        raise _bad("its signature is too long")
    if not data.startswith(_BEGIN):
        return _signatures(data)
    _refuse_odd(data)
    return _armour(data.removesuffix(b"\n").split(b"\n"))


def _refuse_odd(data: bytes) -> None:
    if odd := _ODD.search(data):
        line = data.count(b"\n", 0, odd.start()) + 1
        raise _bad(f"line {line} has a control character, {odd[0]!r}")


def _bad(why: str) -> Error:
    return Error(why, "get the file again as it was signed: only one text and its signatures")


def _armour(lines: list[bytes]) -> tuple[bytes, ...]:
    """The packets in an armour of signatures, to which all lines belong (RFC 9580, 6.2)."""
    if lines[-1] != _END:
        raise _bad("it does not end with its signature")
    start = next((number for number, line in enumerate(lines[1:], 1) if not _HEADER.fullmatch(line)), len(lines))
    body = lines[start + 1 : -1]
    if lines[start] or start > _HEADERS or sum(map(len, body)) > 2 * _LARGEST:
        raise _bad("the armour of its signature is damaged")
    checksum = body.pop() if body and _CHECKSUM.fullmatch(body[-1]) else b""
    if not all(map(_BASE64.fullmatch, body)) or any(line.endswith(b"=") for line in body[:-1]):
        raise _bad("the armour of its signature is damaged")
    try:
        data = base64.b64decode(b"".join(body), validate=True)
    except binascii.Error:
        raise _bad("the armour of its signature is damaged") from None
    if checksum and checksum[1:] != base64.b64encode(_crc24(data).to_bytes(3, "big")):
        raise _bad("the armour of its signature is damaged")
    return _signatures(data)


def _signatures(data: bytes) -> tuple[bytes, ...]:
    found = tuple(_packets(data)) if len(data) <= _LARGEST else ()
    if not found:
        raise Error("it has no signature", "sign it with gpg --clearsign or --detach-sign")
    return found


def refuse_weak(packets: Sequence[bytes]) -> None:
    """Raise Error if apt would not accept a signature of this kind, or `document` cannot name it."""
    for packet in packets:
        _hash(packet)


def armoured(packets: Sequence[bytes]) -> bytes:
    """Signatures in one armour (RFC 9580, 6.2).

    It has a checksum: without one, gpg 2.2 does not stop reading if base64 needs no padding.
    """
    data = b"".join(packets)
    body, checksum = base64.b64encode(data), base64.b64encode(_crc24(data).to_bytes(3, "big"))
    lines = (body[i : i + 64] for i in range(0, len(body), 64))
    return b"%s\n\n%s\n=%s\n%s\n" % (_BEGIN, b"\n".join(lines), checksum, _END)


def _crc24(data: bytes) -> int:
    """The checksum of an armour (RFC 9580, 6.1.1)."""
    crc = 0xB704CE
    for octet in data:
        crc ^= octet << 16
        for _ in range(8):
            crc <<= 1
            if crc & 0x1000000:
                crc ^= 0x1864CFB
    return crc


def unarmoured(data: bytes) -> bytes:
    """The content of the first armour (RFC 9580, 6.2); Error if it is damaged."""
    lines = data.partition(b"-----END")[0].replace(b"\r\n", b"\n").splitlines()
    body = lines[lines.index(b"") + 1 :] if b"" in lines else ()
    try:
        return base64.b64decode(b"".join(line for line in body if not line.startswith(b"=")), validate=True)
    except binascii.Error:
        raise Error("the armour is damaged", "get it again") from None


def _packets(data: bytes) -> Iterator[bytes]:
    """The signature packets in the data, each with a definite length (RFC 9580, 4.2); Error for anything else."""
    at = 0
    while at < len(data):
        header = data[at]
        if header & 0xC0 == 0xC0:
            kind, first = header & 0x3F, int.from_bytes(data[at + 1 : at + 2], "big")
            if first < 192:
                length, octets = first, 1
            elif first < 224:
                length, octets = (first - 192 << 8) + int.from_bytes(data[at + 2 : at + 3], "big") + 192, 2
            else:
                length, octets = int.from_bytes(data[at + 2 : at + 6], "big"), 5
            partial = 224 <= first < 255
        else:
            kind, octets = header >> 2 & 0x0F, 1 << (header & 3)
            length, partial = int.from_bytes(data[at + 1 : at + 1 + octets], "big"), header & 3 == 3
        end = at + 1 + octets + length
        if header < 0x80 or kind != _SIGNATURE or partial or length < 10 or end > len(data):
            raise Error("it has other data than signatures", "make it with gpg --clearsign or --detach-sign")
        yield data[at:end]
        at = end


def _hash(packet: bytes) -> str:
    """The name of a signature's hash algorithm (RFC 9580, 5.2.3); Error if it is weak."""
    octets = (1 << (packet[0] & 3)) if packet[0] < 0xC0 else 1 if packet[1] < 192 else 2 if packet[1] < 224 else 5
    version, algorithm = packet[1 + octets], packet[1 + octets + 3]
    if version != 4 or algorithm not in _HASHES:
        raise Error("a signature in it is too old, too new or too weak", "sign it with gpg and SHA-256 or SHA-512")
    return _HASHES[algorithm]


def field(content: bytes, name: str) -> str:
    """The value of a one-line field of a release file; empty if it has none."""
    found = re.search(rb"^%s: *(.*)$" % name.encode(), content, re.MULTILINE)
    return found[1].decode("utf-8", "replace").strip() if found else ""
