# SPDX-License-Identifier: GPL-3.0-or-later
"""Other builders of images: one module each, the directory is the registry.

A module has

- NAME: what the results call it;
- PACKAGE: the Debian packages that it needs, with blanks between them;
- NOTE: what its disk has or lacks beside ours, one sentence;
- version(): the tool's version;
- build(workdir, packages, mirror): make a disk of DISK bytes in `workdir` with these packages of Debian, by name,
  all from the mirror (`bench.mirror.Mirror`); return its path. Raise an exception, if it cannot.

`build` runs in a process of its own, as root of a mount and PID namespace: what it leaves mounted ends with it.
"""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol, cast

from bench.mirror import Mirror

DISK: Final = 8 << 30
"""Bytes of every disk, as of ours."""

BOOT: Final = """\
#!/bin/sh
# shellcheck disable=SC2016 # GRUB's variables, and those of the shell inside
# usage: boot ROOT DISK ESP
#
# GRUB for BIOS on a disk whose root is mounted on ROOT, the signed shim and GRUB for UEFI on its partition ESP. The
# partition is written by mtools, as not every kernel can mount it.
set -eu
export root="$1" disk="$2" esp="$3" MTOOLS_SKIP_CHECK=1
uuid=$(findmnt -n -o UUID --mountpoint "$root")
unshare --mount sh -euc '
    for name in dev proc sys; do
        mountpoint --quiet "$root/$name" || mount --rbind "/$name" "$root/$name"
    done
    [ -b "$root$disk" ] || mount --rbind /dev "$root/dev"
    chroot "$root" grub-install --target=i386-pc "$disk"
    chroot "$root" update-grub'
signed=$root/usr/lib/grub/x86_64-efi-signed
mmd -i "$esp" ::EFI ::EFI/BOOT ::EFI/debian
mcopy -i "$esp" "$root/usr/lib/shim/shimx64.efi.signed" ::EFI/BOOT/BOOTX64.EFI
mcopy -i "$esp" "$root/usr/lib/shim/mmx64.efi.signed" ::EFI/BOOT/mmx64.efi
mcopy -i "$esp" "$signed/grubx64.efi.signed" ::EFI/BOOT/grubx64.efi
printf 'search.fs_uuid %s root\\nset prefix=($root)/boot/grub\\nconfigfile $prefix/grub.cfg\\n' "$uuid" |
    mcopy -i "$esp" - ::EFI/debian/grub.cfg
"""
"""A script that makes a disk bootable by BIOS and UEFI, for peers that leave that to their configuration."""


class Peer(Protocol):
    """A module of this directory."""

    NAME: str
    PACKAGE: str
    NOTE: str

    def version(self) -> str:
        """The tool's version."""

    def build(self, workdir: Path, packages: Sequence[str], mirror: Mirror) -> Path:
        """Make the disk."""


def names() -> tuple[str, ...]:
    """The peers, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def find(name: str) -> Peer:
    """The module of a peer."""
    return cast(Peer, importlib.import_module(f"{__name__}.{name}"))


def installed(package: str) -> str:
    """The version of an installed Debian package; raise an exception, if it is not installed."""
    query = ("dpkg-query", "--show", "--showformat=${db:Status-Status} ${Version}", package)
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    status, _, version = done.stdout.partition(" ")
    if status != "installed":
        raise LookupError(f"{package} is not installed: apt-get install {package}")
    return version


def script(path: Path, text: str) -> Path:
    """Write a script that can be run; its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def run(argv: Sequence[str | Path], workdir: Path) -> None:
    """Run a command in a directory; raise an exception if it fails."""
    subprocess.run(argv, cwd=workdir, stdin=subprocess.DEVNULL, check=True)
