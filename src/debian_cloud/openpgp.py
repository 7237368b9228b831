# SPDX-License-Identifier: GPL-3.0-or-later
"""Signatures as OpenPGP writes them down: packets, armour and the cleartext framework (RFC 9580; no cryptography)."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .errors import Error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_CLEARTEXT: Final = b"-----BEGIN PGP SIGNED MESSAGE-----\n"
_BEGIN: Final = b"-----BEGIN PGP SIGNATURE-----"
_END: Final = b"-----END PGP SIGNATURE-----"
_HASHES: Final = {8: "SHA256", 9: "SHA384", 10: "SHA512"}
"""Algorithms by their number (RFC 9580, 9.5), without those that apt takes for weak."""
_SIGNATURE: Final = 2
"""The packet's type (RFC 9580, 5)."""


@dataclass(frozen=True, slots=True)
class Cleartext:
    """A text that can be read with its signatures below it: `text` has no last line end, which is not signed."""

    text: bytes
    signatures: tuple[bytes, ...]

    @property
    def content(self) -> bytes:
        """What is signed: blanks at the ends of lines are not, and dashes at their beginnings are escaped."""
        lines = (line.removeprefix(b"- ").rstrip(b" \t\r") for line in self.text.split(b"\n"))
        return b"\n".join(lines)

    def document(self) -> bytes:
        """The whole, with one armour for all signatures."""
        hashes = ",".join(dict.fromkeys(_hash(packet) for packet in self.signatures))
        return b"%sHash: %s\n\n%s\n%s" % (_CLEARTEXT, hashes.encode(), self.text, armoured(self.signatures))


def is_cleartext(data: bytes) -> bool:
    """Whether it is such a document, rather than signatures alone."""
    return data.startswith(_CLEARTEXT[:-1])


def cleartext(data: bytes) -> Cleartext:
    """Read one (RFC 9580, 7); Error when it is another thing, or more than one."""
    data = data.replace(b"\r\n", b"\n")
    head, _, rest = data.partition(b"\n\n")
    text, begin, armour = rest.partition(b"\n" + _BEGIN)
    if not head.startswith(_CLEARTEXT[:-1]) or not begin or data.count(_CLEARTEXT) != 1:
        raise Error("it is not one text with its signatures", "gpg --clearsign writes such a file")
    return Cleartext(text, signatures(_BEGIN + armour))


def signatures(data: bytes) -> tuple[bytes, ...]:
    """The signature packets of a detached signature, armoured or binary; Error when it has anything else."""
    found = tuple(_packets(unarmoured(data) if data.startswith(_BEGIN) else data))
    for packet in found:
        _hash(packet)
    if not found:
        raise Error("there is no signature in it", "gpg --clearsign or --detach-sign writes one")
    return found


def armoured(packets: Sequence[bytes]) -> bytes:
    """Signatures in one armour (RFC 9580, 6.2).

    With its checksum: where base64 needs no padding, gpg 2.2 reads on without one.
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
    """What is in the first armour (RFC 9580, 6.2); Error when it is damaged."""
    lines = data.partition(b"-----END")[0].replace(b"\r\n", b"\n").splitlines()
    body = lines[lines.index(b"") + 1 :] if b"" in lines else ()
    try:
        return base64.b64decode(b"".join(line for line in body if not line.startswith(b"=")), validate=True)
    except binascii.Error:
        raise Error("the armour is damaged", "get it again") from None


def _packets(data: bytes) -> Iterator[bytes]:
    """Packets as they are, each of one piece (RFC 9580, 4.2)."""
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
            raise Error("it is not signatures alone", "gpg --clearsign or --detach-sign writes such a file")
        yield data[at:end]
        at = end


def _hash(packet: bytes) -> str:
    """The name of the algorithm by which a signature was made (RFC 9580, 5.2.3); Error when it is weak."""
    octets = (1 << (packet[0] & 3)) if packet[0] < 0xC0 else 1 if packet[1] < 192 else 2 if packet[1] < 224 else 5
    version, algorithm = packet[1 + octets], packet[1 + octets + 3]
    if version != 4 or algorithm not in _HASHES:
        raise Error("a signature in it is too old, too new or too weak", "sign with gpg, and SHA-256 or SHA-512")
    return _HASHES[algorithm]


def field(content: bytes, name: str) -> str:
    """The one-line field of a release file, or nothing."""
    found = re.search(rb"^%s: *(.*)$" % name.encode(), content, re.MULTILINE)
    return found[1].decode("utf-8", "replace").strip() if found else ""
