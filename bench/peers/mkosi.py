# SPDX-License-Identifier: GPL-3.0-or-later
"""mkosi, of systemd's project."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.mirror import Mirror
from bench.peers import DISK, installed, run

NAME = "mkosi"
PACKAGE = "mkosi debootstrap e2fsprogs dosfstools systemd-container"
NOTE = (
    "a partition with ext4 alone, and no boot loader: made bootable, it would install dracut in the place of"
    " initramfs-tools"
)


def version() -> str:
    """Of mkosi."""
    return installed("mkosi")


def build(workdir: Path, packages: Sequence[str], mirror: Mirror) -> Path:
    """A disk by way of a loop device."""
    # With a local mirror it asks no other, so updates and security come by a file of ours; it takes the place of
    # debootstrap's, which apt finds to contradict mkosi's own. The machine's apt finds its keys by their path alone.
    skeleton = workdir / "skeleton/etc/apt/sources.list"
    skeleton.parent.mkdir(parents=True)
    skeleton.write_text("".join(f"{line}\n" for line in mirror.lines(f"[signed-by={mirror.keyring}]")[1:]))
    asked = ("mkosi", "--distribution=debian", f"--release={mirror.suite}", f"--mirror={mirror.main}")
    kind = ("--local-mirror", mirror.main, "--format=gpt_ext4", f"--root-size={DISK - (4 << 20)}", "--with-docs")
    where = ("--workspace-dir", workdir, "--output=disk.raw", "--manifest-format=")
    more = ("--skeleton-tree=skeleton", "--with-network", *(f"--package={name}" for name in packages))
    run([*asked, *kind, *where, *more, "build"], workdir)
    return workdir / "disk.raw"
