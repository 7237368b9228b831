# SPDX-License-Identifier: GPL-3.0-or-later
"""CRC-32C (Castagnoli), by which ext4 guards its structures (RFC 3720, B.4)."""

from __future__ import annotations

import struct
from typing import Final

_POLYNOMIAL: Final = 0x82F63B78
_WORD: Final = struct.Struct("<Q")


def _tables() -> list[list[int]]:
    """The remainder of each byte, and of each byte that one to seven zero bytes follow."""
    first = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        first.append(value)
    tables = [first]
    for _ in range(7):
        tables.append([first[value & 0xFF] ^ value >> 8 for value in tables[-1]])
    return tables


_TABLES: Final = _tables()


def crc32c(data: bytes, register: int = 0xFFFFFFFF) -> int:
    """The register after these bytes: as the kernel counts, without the inversion at the end."""
    t0, t1, t2, t3, t4, t5, t6, t7 = _TABLES
    whole = len(data) & ~7
    for (word,) in _WORD.iter_unpack(data[:whole]):
        word ^= register  # of the eight bytes, the first four
        register = (
            t7[word & 0xFF] ^ t6[word >> 8 & 0xFF] ^ t5[word >> 16 & 0xFF] ^ t4[word >> 24 & 0xFF]
            ^ t3[word >> 32 & 0xFF] ^ t2[word >> 40 & 0xFF] ^ t1[word >> 48 & 0xFF] ^ t0[word >> 56]
        )  # fmt: skip
    for byte in data[whole:]:
        register = t0[(register ^ byte) & 0xFF] ^ register >> 8
    return register
