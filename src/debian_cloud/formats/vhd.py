# SPDX-License-Identifier: GPL-3.0-or-later
"""The raw disk with the footer of a fixed VHD (Virtual Hard Disk Image Format Specification, 1.0), for Azure."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import Error
from debian_cloud.formats import BLOCKS, raw
from debian_cloud.packed import HINT
from debian_cloud.plan import Plan, in_tree

if TYPE_CHECKING:
    from debian_cloud.view import View

# As raw: its holes do not survive most transports.
PUBLISHED: Final = False
SOURCE: Final = "disk"
DIGEST: Final = BLOCKS
TOOLS: Final = ("perl-base",)
UNIT: Final = 2**20

_FOOTER: Final = struct.Struct(">8sIIQI4sI4sQQ4sII16s")
_FOOTER_SIZE: Final = 512
_COOKIE: Final = b"conectix"
_FIXED: Final = 2
_CHECKSUM: Final = slice(64, 68)

# qemu-img(1) would write the time of day and a random identity. The identity here is that of the partition table
# (UEFI, 5.3.2). QEMU takes the size from the footer, and not from its cylinders, if "win " made the file.
_SCRIPT: Final = r"""
my ($raw, $out, $epoch) = @ARGV;
system("cp", "--sparse=always", $raw, $out) == 0 or die;
my $size = -s $raw;
open(my $in, "<:raw", $raw) or die $!;
seek($in, 512 + 56, 0) or die $!;
read($in, my $id, 16) == 16 or die;
my $all = $size / 512;
my ($cylinders, $heads, $sectors) = (65535, 16, 255);
if ($all < 65535 * 16 * 63) {
    ($heads, $sectors) = (int(($all / 17 + 1023) / 1024), 17);
    $heads = 4 if $heads < 4;
    if ($all / 17 >= $heads * 1024 or $heads > 16) { ($heads, $sectors) = (16, 31); }
    if ($all / $sectors >= $heads * 1024) { $sectors = 63; }
}
my $found = int($all / $sectors / $heads);
$cylinders = $found if $found < $cylinders;
my $footer = pack("a8 N N Q> N a4 N a4 Q> Q> n C C N N a16 x428", "conectix", 2, 0x10000, 0xFFFFFFFFFFFFFFFF,
    $epoch - 946684800, "win ", 0x60001, "Wi2k", $size, $size, $cylinders, $heads, $sectors, 2, 0, $id);
substr($footer, 64, 4) = pack("N", ~unpack("%32C*", $footer) & 0xFFFFFFFF);
open(my $file, "+<:raw", $out) or die $!;
seek($file, $size, 0) or die $!;
print $file $footer or die $!;
close($file) or die $!;
"""


def steps(source: str, out: str, epoch: int) -> Plan:
    """One step: a sparse copy, and its footer."""
    return (in_tree("write a vhd", epoch, "perl", "-e", _SCRIPT, f"/mnt/{source}", f"/mnt/{out}", str(epoch)),)


def check(name: str, view: View, virtual_size: int) -> None:
    """Check the footer; any bytes before it are a disk."""
    if not holds(view):
        raise Error(f"{name} is not a fixed vhd", HINT)
    if view.size - _FOOTER_SIZE != virtual_size:
        raise Error(f"{name} is a disk of {view.size - _FOOTER_SIZE} bytes, but its record says {virtual_size}", HINT)
    inner(name, view)


def holds(view: View) -> bool:
    """By the footer."""
    if view.size < 2 * _FOOTER_SIZE:
        return False
    return view.read(view.size - _FOOTER_SIZE, len(_COOKIE)) == _COOKIE and raw.holds(view)


def inner(name: str, view: View) -> View:
    """All but the footer; Error if that is of another disk."""
    footer = view.read(view.size - _FOOTER_SIZE, _FOOTER_SIZE)
    _, _, version, _, _, _, _, _, _, size, _, kind, checksum, _ = _FOOTER.unpack_from(footer)
    rest = sum(footer) - sum(footer[_CHECKSUM])
    for wrong, what in (
        (version != 0x10000 or kind != _FIXED, "is a vhd of another kind than fixed"),
        (checksum != ~rest & 0xFFFFFFFF, "is damaged: its footer does not have its checksum"),
        (size != view.size - _FOOTER_SIZE, "is damaged: its footer says another size"),
        (size % UNIT, "has a size that is not a number of MiB"),
    ):
        if wrong:
            raise Error(f"{name} {what}", HINT)
    return view.part(0, size)
