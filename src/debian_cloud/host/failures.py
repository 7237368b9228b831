# SPDX-License-Identifier: GPL-3.0-or-later
"""The output of a failed tool -> the one error that users see."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import FAILED, Error
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

ON_DISK: Final = "DEBIAN_CLOUD_TREE_ON_DISK"
"""Variable of the environment: if it is set, no tree is made in memory."""
_TAIL: Final = 12
"""Maximum number of last lines of a failed tool's output that are shown, and of reasons before them."""
_REASONS: Final = ("E: ", "Err:", "dpkg: error", "error: ")
# A command of this project reports both itself.
_OWN: Final = re.compile(
    r"^debian-cloud: error: (?P<why>.+(?:\n(?!debian-cloud: ).*)*)\ndebian-cloud: hint: (?P<hint>.+)", re.MULTILINE
)
# A pattern of a tool's output, a better sentence about the cause, and a hint.
_CAUSES: Final = (
    (_OWN, r"\g<why>", r"\g<hint>"),
    # mke2fs(8) fills the image's disk, not the disk on which the image is stored.
    (
        re.compile("Could not allocate (?:block|inode) in ext2 filesystem"),
        "the disk of the image is too small for its content",
        "set a larger Image-Size; for a test, give --size",
    ),
    (
        re.compile("No space left on device|ENOSPC"),
        "the disk is full",
        "free some space, or choose another place with --output",
    ),
    (
        re.compile(
            r"^dpkg: error processing archive \S*?(?P<new>[^/\s_]+)_[^/\s]*\.deb \(--unpack\):\n"
            r" *trying to overwrite '(?P<path>[^'\n]+)', which is also in package (?P<old>\S+)",
            re.MULTILINE,
        ),
        r"\g<new> and \g<old> both have the file \g<path>",
        r"rename the file of \g<new>, for example in a directory of drop-ins: a file belongs to one package",
    ),
)
_NO_NAMESPACE: Final = re.compile(r"^(?:unshare|newuidmap|newgidmap): (?P<why>.+)", re.MULTILINE)
# Kernel settings for ordinary users: name, value that forbids namespaces, value that allows them.
_SETTINGS: Final = (
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
    ("user.max_user_namespaces", "0", "10000"),
)
# A pattern of a refusal, and a hint; the first match counts.
_WAYS: Final = (
    (
        "subuid|subgid|don't exist",
        "give the user subordinate ids: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER",
    ),
    (
        "map",
        "let newuidmap(1) map ids: it needs its set-user-ID bit, and neither no_new_privs nor nosuid",
    ),
    (
        "/proc",
        "build outside of the container, or show it all of /proc: if parts are hidden, no other can be mounted",
    ),
    ("No space left", "increase the limit user.max_*_namespaces that is reached: namespaces(7)"),
)


def failed(argv: Sequence[str], status: int, said: str, title: str = "") -> Error:
    """The Error for a failed command, from its output `said`, with a hint; `title` is its step's."""
    lines = [line for line in said.splitlines() if line.strip()]
    what = title or argv[0]
    if _NO_NAMESPACE.search(said):
        return refused(said, what)
    for known, sentence, hint in _CAUSES:
        if found := known.search(said):
            # Of a command of this project, the reasons of the tool that it called are before its own sentence.
            reasons = said[: found.start()].splitlines() if known is _OWN else []
            return Error(f"{what}: {found.expand(sentence)}{_lines(_reasons(reasons))}", found.expand(hint), FAILED)
    ending = f"was killed by signal {-status}" if status < 0 else f"failed with exit status {status}"
    # The reason is often long before the end: the prefixes of apt's and dpkg's messages find it.
    shown = _lines((*_reasons(lines[:-_TAIL]), *lines[-_TAIL:]))
    return Error(f"{what}: {argv[0]} {ending}{shown}", f"the command was: {_short(argv)}", FAILED)


def no_tree(title: str, place: Path) -> Error:
    """The Error that a tree in memory is gone: logind.conf(5), RemoveIPC."""
    return Error(
        f"{title}: {printable(str(place))} was removed while it was in use, as logind(8) does at the last logout",
        f"build while you are logged in, or set {ON_DISK}=1",
        FAILED,
    )


def no_memory(title: str, place: Path) -> Error:
    """The Error that the file system in memory is full in which a tree is made."""
    return Error(
        f"{title}: there is no more room for the root file system in memory, {printable(str(place))}",
        f"free some memory, or set {ON_DISK}=1",
        FAILED,
    )


def _reasons(lines: Sequence[str]) -> list[str]:
    return [line for line in lines if line.startswith(_REASONS)][:_TAIL]


def _lines(lines: Sequence[str]) -> str:
    return "".join(f"\n  {printable(line)}" for line in lines)


def refused(said: str, what: str = "") -> Error:
    """The Error that no namespace can be created, from unshare(1)'s output, with a hint by the machine's settings."""
    match = _NO_NAMESPACE.search(said)
    why = printable(match["why"] if match else said).removesuffix(": Success")
    # ENOSPC is about a limit here, not about a disk (unshare(2)).
    sentence = f"no namespace can be created: {why.replace('No space left on device', 'the limit is reached')}"
    return Error(f"{what}: {sentence}" if what else sentence, _way(match[0] if match else said))


def _way(said: str) -> str:
    if os.geteuid():
        for name, forbids, allows in _SETTINGS:
            with contextlib.suppress(OSError):
                if Path("/proc/sys", *name.split(".")).read_text("ascii").strip() == forbids:
                    return f"allow it to ordinary users with sysctl {name}={allows}, or build as root"
    for pattern, hint in _WAYS:
        if re.search(pattern, said):
            return hint
    if os.geteuid():
        return (
            "build outside of a chroot or container, in which the kernel may forbid it to ordinary users,"
            " or build as root (user_namespaces(7))"
        )
    return "build outside of the container, or give it CAP_SYS_ADMIN (capabilities(7))"


def _short(argv: Sequence[str]) -> str:
    text = shlex.join(argv)
    return text if len(text) < 400 else text[:400] + " …"
