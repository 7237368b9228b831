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


def _zeros() -> list[list[list[int]]]:
    """What 8, 16, 32 … 4096 zero bytes make of each of a register's four bytes."""
    t0, t1, t2, t3 = _TABLES[7], _TABLES[6], _TABLES[5], _TABLES[4]
    steps = [[t0, t1, t2, t3]]
    for _ in range(9):
        steps.append([[_after(value, steps[-1]) for value in table] for table in steps[-1]])
    return steps


def _after(register: int, step: list[list[int]]) -> int:
    return (
        step[0][register & 0xFF]
        ^ step[1][register >> 8 & 0xFF]
        ^ step[2][register >> 16 & 0xFF]
        ^ step[3][register >> 24]
    )


_ZEROS: Final = _zeros()


def crc32c(data: bytes, register: int = 0xFFFFFFFF) -> int:
    """The register after these bytes: as the kernel counts, without the inversion at the end."""
    t0, t1, t2, t3, t4, t5, t6, t7 = _TABLES
    # Half of what a file system has in its structures is zeros at their ends.
    words = len(data) // 8
    filled = -(-len(data.rstrip(b"\0")) // 8)
    for (word,) in _WORD.iter_unpack(data[: 8 * min(words, filled)]):
        word ^= register  # of the eight bytes, the first four
        register = (
            t7[word & 0xFF] ^ t6[word >> 8 & 0xFF] ^ t5[word >> 16 & 0xFF] ^ t4[word >> 24 & 0xFF]
            ^ t3[word >> 32 & 0xFF] ^ t2[word >> 40 & 0xFF] ^ t1[word >> 48 & 0xFF] ^ t0[word >> 56]
        )  # fmt: skip
    left = max(0, words - filled)
    for bit, step in enumerate(_ZEROS):
        if left >> bit & 1:
            register = _after(register, step)
    for _ in range(left >> len(_ZEROS)):
        register = _after(_after(register, _ZEROS[-1]), _ZEROS[-1])
    for byte in data[8 * words :]:
        register = t0[(register ^ byte) & 0xFF] ^ register >> 8
    return register
