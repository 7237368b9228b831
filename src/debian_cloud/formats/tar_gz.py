# SPDX-License-Identifier: GPL-3.0-or-later
"""The raw disk as disk.raw in a compressed tar of GNU's old format, which Google Compute Engine takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from debian_cloud import packed
from debian_cloud.errors import Error
from debian_cloud.formats import SHA256, raw
from debian_cloud.plan import Plan, in_tree
from debian_cloud.view import PIECE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from debian_cloud.view import View

PUBLISHED: Final = True
SOURCE: Final = "disk"
DIGEST: Final = SHA256
TOOLS: Final = ("perl-base", "pigz")
UNIT: Final = 2**30

_MEMBER: Final = "disk.raw"
"""The only name that Compute Engine takes."""
_BLOCK: Final = 512
# GNU tar's manual, Basic Tar Format and Sparse Formats: four ranges of data in the header, 21 in each block after it.
_MAGIC: Final = b"ustar  \0"
_FIRST, _MORE = (386, 4), (0, 21)
_GOES_ON: Final = (482, 504)
_REAL_SIZE: Final = slice(483, 495)
_RANGES: Final = 2**18
"""Maximum ranges of data in a disk."""
_HEAD: Final = 1024

# GNU tar finds the holes of a file by the file system's ranges, which differ from one to another, or by reading all
# of the disk twice, which takes half a minute. Here, blocks of 4 KiB are holes if all of their bytes are zeros.
_SCRIPT: Final = r"""
my ($raw, $file, $epoch) = @ARGV;
open(my $in, "<:raw", $raw) or die $!;
my ($size, $at, $block, @ranges) = (-s $in, 0, "\0" x 4096);
my $stored = 0;
while (defined(my $data = sysseek($in, $at, 3))) {
    $at = sysseek($in, $data += 0, 4) + 0;
    $data -= $data % 4096;
    $data = $ranges[-1][0] + $ranges[-1][1] if @ranges and $ranges[-1][0] + $ranges[-1][1] > $data;
    sysseek($in, $data, 0);
    while ($data < $at and my $read = sysread($in, my $piece, 1 << 20)) {
        for (my $i = 0; $i < $read; $i += 4096, $data += 4096) {
            my $one = substr($piece, $i, 4096);
            next if $one eq $block or $one !~ /[^\0]/;
            if (@ranges and $ranges[-1][0] + $ranges[-1][1] == $data) { $ranges[-1][1] += length($one); }
            else { push(@ranges, [$data, length($one)]); }
            $stored += length($one);
        }
        $at = $data if $data > $at;
    }
}
my @parts = @ranges;
push(@parts, [$size, 0]) if not @ranges or $ranges[-1][0] + $ranges[-1][1] < $size;
sub number { $_[0] < 8 ** 11 ? sprintf("%011o\0", $_[0]) : pack("C x3 Q>", 0x80, $_[0]) }
sub parts { my @some = splice(@parts, 0, $_[0]); join("", map { number($_->[0]) . number($_->[1]) } @some) }
my $fields = "a100 a8 a8 a8 a12 a12 a8 a1 a100 a8 a32 a32 x16 x41 a96 C a12 x17";
my $header = pack($fields, "disk.raw", "0000644", "0000000", "0000000", number($stored), number($epoch), " " x 8, "S",
    "", "ustar  ", "root", "root", parts(4), @parts > 0, number($size));
substr($header, 148, 8) = sprintf("%06o\0 ", unpack("%32C*", $header));
open(STDOUT, ">:raw", $file) or die $!;
open(my $out, "|-:raw", "pigz", "-n", "-6") or die $!;
print $out $header or die $!;
while (@parts) { my $some = parts(21); print $out pack("a504 C x7", $some, @parts > 0) or die $!; }
for my $range (@ranges) {
    sysseek($in, $range->[0], 0);
    for (my $left = $range->[1]; $left > 0;) {
        my $read = sysread($in, my $piece, $left < 1 << 20 ? $left : 1 << 20) or die;
        print $out $piece or die $!;
        $left -= $read;
    }
}
print $out "\0" x (-$stored % 512 + 1024) or die $!;
close($out) or die;
"""


def steps(source: str, out: str, epoch: int) -> Plan:
    """One step; pigz(1) writes the same with any number of processors."""
    return (in_tree("pack the raw disk", epoch, "perl", "-e", _SCRIPT, f"/mnt/{source}", f"/mnt/{out}", str(epoch)),)


def check(name: str, view: View, virtual_size: int) -> None:
    """Check the first header of the tar and the first sectors of the disk; the rest is not unpacked."""
    if not _is_gz(view):
        raise Error(f"{name} is not a tar.gz", packed.HINT)
    size, pieces = _disk(name, view)
    if size != virtual_size:
        raise Error(f"{name} is a disk of {size} bytes, but its record says {virtual_size}", packed.HINT)
    if size % UNIT:
        raise Error(f"{name} is a disk of {size} bytes, which is not a number of GiB", packed.HINT)
    if not raw.has_table(packed.Reader(name, pieces).read(_HEAD)):
        raise Error(f"{name} does not contain a disk with GPT", packed.HINT)


def holds(view: View) -> bool:
    """By the first bytes."""
    return _is_gz(view)


def inner(name: str, view: View) -> Iterator[bytes]:
    """The disk, a piece at a time, zeros for its holes."""
    return _disk(name, view)[1]


def _is_gz(view: View) -> bool:
    return view.read(0, min(view.size, len(packed.GZ))) == packed.GZ


def _disk(name: str, view: View) -> tuple[int, Iterator[bytes]]:
    """The size of the disk in bytes, and its content; Error if the tar does not begin with it."""
    reader = packed.Reader(name, packed.gz(name, view))
    header = reader.read(_BLOCK)
    wrong = Error(f"{name} does not contain {_MEMBER} alone, in GNU's old format", packed.HINT)
    named = header[:100].rstrip(b"\0") == _MEMBER.encode() and header[156:157] == b"S"
    if not named or header[257:265] != _MAGIC or not _is_whole(header):
        raise wrong
    ranges = _ranges(header, *_FIRST)
    block, goes_on = header, _GOES_ON[0]
    while block[goes_on]:
        block, goes_on = reader.read(_BLOCK), _GOES_ON[1]
        ranges += _ranges(block, *_MORE)
        if len(ranges) > _RANGES:
            raise wrong
    size = _number(header[_REAL_SIZE])
    ends = [start + length for start, length in ranges]
    out_of_order = any(end > start for end, (start, _) in zip([0, *ends], [*ranges, (size, 0)], strict=True))
    negative = any(length < 0 for _, length in ranges)
    if out_of_order or negative or _number(header[124:136]) != sum(length for _, length in ranges):
        raise wrong
    return size, _expanded(name, reader, ranges, size)


def _expanded(name: str, reader: packed.Reader, ranges: list[tuple[int, int]], size: int) -> Iterator[bytes]:
    """The disk from its ranges of data; Error if the tar holds more than the disk."""
    at = taken = 0
    for start, length in (*ranges, (size, 0)):
        while at < start:
            yield bytes(min(PIECE, start - at))
            at += min(PIECE, start - at)
        while at < start + length:
            piece = reader.read(min(PIECE, start + length - at))
            yield piece
            at += len(piece)
            taken += len(piece)
    # Zeros up to the end of a block, two blocks of zeros, and zeros up to the end of a record.
    if any(piece.strip(b"\0") for piece in (reader.read(-taken % _BLOCK), *reader.rest())):
        raise Error(f"{name} has more in it than {_MEMBER}", packed.HINT)


def _ranges(block: bytes, place: int, count: int) -> list[tuple[int, int]]:
    """The ranges of data in a header, as (offset, bytes); fields of zeros are not used."""
    fields = [block[place + 24 * i : place + 24 * (i + 1)] for i in range(count)]
    return [(_number(field[:12]), _number(field[12:])) for field in fields if field.strip(b"\0")]


def _number(field: bytes) -> int:
    """A number in a header, octal, or binary if its first bit is set; -1 if it is neither."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    digits = field.strip(b" \0")
    return int(digits, 8) if digits and not digits.strip(b"01234567") else -1


def _is_whole(header: bytes) -> bool:
    """Whether a header has its checksum."""
    return _number(header[148:156]) == sum(header[:148] + b" " * 8 + header[156:])
