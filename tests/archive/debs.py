# SPDX-License-Identifier: GPL-3.0-or-later
"""Binary packages written byte by byte, as no tool makes them."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile

CONTROL = b"Package: demo\nVersion: 1\nArchitecture: all\nMaintainer: T <t@example.org>\nDescription: d\n"
EVIL = CONTROL.replace(b"demo", b"openssh-server")


def entry(name: str, content: bytes = b"", kind: bytes = b"0", link: str = "", *, size: int | None = None) -> bytes:
    """One entry of a tar, as GNU tar writes it; `size` is the one in its header."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = len(content) if size is None else size
    return info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


END = bytes(1024)
PLAIN = entry("./", kind=b"5") + entry("./control", CONTROL) + END
DATA = entry("./", kind=b"5") + entry("./usr/", kind=b"5") + entry("./usr/demo", b"x") + END


def member(name: str, content: bytes, *, size: int | None = None) -> bytes:
    """One member of an ar(1) archive."""
    length = len(content) if size is None else size
    return f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{length:<10}`\n".encode() + content + b"\n" * (len(content) % 2)


def deb(*members: bytes) -> bytes:
    return b"!<arch>\n" + b"".join(members)


VERSION = member("debian-binary", b"2.0\n")
TWO_STREAMS = lzma.compress(PLAIN[:-1024]) + lzma.compress(entry("./control", EVIL) + END)
BROKEN_MEMBERS = {
    "nothing": b"",
    "no archive": b"no package",
    "no members": deb(),
    "a size that is not there": b"!<arch>\ndebian-binary   0 0 0 0 99999999999`\n",
    "one member": deb(VERSION),
    "two members": deb(VERSION, member("control.tar", PLAIN)),
    "the other order": deb(VERSION, member("data.tar", DATA), member("control.tar", PLAIN)),
    "no version": deb(member("control.tar", PLAIN), member("data.tar", DATA)),
    "another version": deb(member("debian-binary", b"3.0\n"), member("control.tar", PLAIN), member("data.tar", DATA)),
    "more in the version": deb(
        member("debian-binary", b"2.0\nx\n"), member("control.tar", PLAIN), member("data.tar", DATA)
    ),
    "one twice": deb(VERSION, member("control.tar", PLAIN), member("control.tar", PLAIN), member("data.tar", DATA)),
    "one more": deb(VERSION, member("control.tar", PLAIN), member("data.tar", DATA), member("_x", b"")),
    "one between": deb(VERSION, member("_x", b""), member("control.tar", PLAIN), member("data.tar", DATA)),
    "something after it": deb(VERSION, member("control.tar", PLAIN), member("data.tar", DATA)) + b"x",
    "a cut": deb(VERSION, member("control.tar", PLAIN), member("data.tar", DATA))[:-600],
    "a member that ends later": deb(VERSION, member("control.tar", PLAIN), member("data.tar", DATA, size=10**9)),
    "a negative size": deb(VERSION, member("control.tar", PLAIN, size=-1), member("data.tar", DATA)),
    "a size beyond all files": deb(VERSION, b"control.tar 0 0 0 0 " + b"9" * 38 + b"`\n"),
    # Read by the field positions of ar(5), control.tar ends before a data.tar that is not the last member.
    "a size in another's place": deb(
        VERSION,
        f"{'control.tar':<16}{'0 0 0':<32}{len(PLAIN)} {len(PLAIN) + 60 + len(DATA):<5}`\n".encode(),
        PLAIN,
        member("data.tar", DATA),
        member("data.tar", DATA),
    ),
    "bzip2": deb(VERSION, member("control.tar.bz2", bz2.compress(PLAIN)), member("data.tar", DATA)),
    "lzma": deb(
        VERSION,
        member("control.tar.lzma", lzma.compress(PLAIN, lzma.FORMAT_ALONE)),
        member("data.tar", DATA),
    ),
    "lzma data": deb(
        VERSION, member("control.tar", PLAIN), member("data.tar.lzma", lzma.compress(DATA, lzma.FORMAT_ALONE))
    ),
    "another compression than it says": deb(
        VERSION, member("control.tar.xz", gzip.compress(PLAIN)), member("data.tar", DATA)
    ),
    "a second stream with a second control": deb(
        VERSION, member("control.tar.xz", TWO_STREAMS), member("data.tar", DATA)
    ),
    "a second member with a second control": deb(
        VERSION,
        member("control.tar.gz", gzip.compress(PLAIN[:-1024]) + gzip.compress(entry("./control", EVIL) + END)),
        member("data.tar", DATA),
    ),
    "a cut stream": deb(VERSION, member("control.tar.xz", lzma.compress(PLAIN)[:-20]), member("data.tar", DATA)),
    "a cut stream of data": deb(
        VERSION, member("control.tar", PLAIN), member("data.tar.gz", gzip.compress(DATA)[:-9])
    ),
}


def pax(records: bytes) -> bytes:
    """An extended header of POSIX for the next entry."""
    return entry("PaxHeaders/x", records, b"x")


CONTROLS = {
    "cut after control": entry("./control", CONTROL),
    "cut within control": entry("./control", CONTROL)[:600],
    "one block at its end": entry("./control", CONTROL) + bytes(512),
    "something after its end": PLAIN + b"x" * 512,
    "a control after its end": PLAIN + entry("./control", EVIL) + END,
    "no control": entry("./", kind=b"5") + END,
    "nothing": END,
    "a link over it": entry("./control", CONTROL)
    + entry("./evil", EVIL)
    + entry("./control", kind=b"2", link="evil")
    + END,
    "a hard link over it": entry("./control", CONTROL)
    + entry("./evil", EVIL)
    + entry("./control", kind=b"1", link="./evil")
    + END,
    "twice": entry("./control", CONTROL) + entry("./control", EVIL) + END,
    "twice, once without ./": entry("control", CONTROL) + entry("./control", EVIL) + END,
    "twice, once with .//": entry("./control", CONTROL) + entry(".//control", EVIL) + END,
    "twice, once by a directory": entry("./control", CONTROL) + entry("./x/../control", EVIL) + END,
    "twice, once by an absolute path": entry("./control", CONTROL) + entry("/control", EVIL) + END,
    "twice, once with a slash": entry("./control", CONTROL) + entry("./control/", EVIL) + END,
    "twice, by an extended header": entry("./control", CONTROL)
    + pax(b"18 path=./control\n")
    + entry("./md5sums", EVIL)
    + END,
    "twice, by a long name": entry("./control", CONTROL)
    + entry("././@LongLink", b"./control\0", b"L")
    + entry("./md5sums", EVIL)
    + END,
    "a link to it": entry("./control", CONTROL) + entry("./postinst", kind=b"2", link="control") + END,
    "a directory of links": entry("./control", CONTROL)
    + entry("./x", kind=b"2", link=".")
    + entry("./x/control", EVIL)
    + END,
    "a directory": entry("./control", kind=b"5") + END,
    "a pipe": entry("./control", kind=b"6") + END,
    "sparse": entry("./control", CONTROL, b"S") + END,
    "sparse beside it": entry("./control", CONTROL) + entry("./x", b"x" * 10, b"S") + END,
    "a directory with a content": entry("./", EVIL, b"5") + entry("./control", CONTROL) + END,
    "a directory whose content is a control": entry("./", entry("./control", EVIL), b"5")
    + entry("./control", CONTROL)
    + END,
    "a false checksum": PLAIN[: 148 + 512] + b"0000000\0" + PLAIN[156 + 512 :],
    "another magic": PLAIN[:257] + b"\0" * 8 + PLAIN[265:],
    "an entry without a name": entry("./control", CONTROL) + entry("", b"x") + END,
    "a size that is not there": entry("./control", CONTROL, size=8**10) + END,
    "a size in base 256": entry("./control", CONTROL, size=8**11) + END,
}
DATAS = {
    "cut": DATA[:-1024],
    "cut in an entry": DATA[:1600],
    "no tar": b"x" * 2048,
    "nothing": b"",
    "a device": entry("./null", kind=b"3") + END,
    "a pipe": entry("./pipe", kind=b"6") + END,
    "a path that leads out": entry("./../etc/passwd", b"x") + END,
    "an absolute path": entry("/etc/passwd", b"x") + END,
    "the same twice": entry("./a", b"x") + entry("./a", b"y") + END,
    "a line end in a name": entry("./a\nb", b"x") + END,
    "sparse": entry("./a", b"x", b"S") + END,
    "something after its end": DATA + b"x",
    "an extended header": pax(b"12 path=abc\n") + entry("./a", b"x") + END,
    "a long name for nothing": entry("././@LongLink", b"./a\0", b"L") + END,
    "a name that is too long": entry("././@LongLink", b"./" + b"a" * 5000 + b"\0", b"L") + entry("./a", b"x") + END,
}
