# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare the images' sizes with those of Debian's official package sets.

usage: tests/sizes.py WORLD

The disks are those that tests/world made. The other column has the packages that
Debian's official image of that vendor and suite names, installed without Recommends
by mmdebstrap, put into an ext4 file system by mke2fs, and compressed as Debian
publishes its qcow2 (zlib); no settings, no boot loader. Sizes are in MiB.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "src")]

from debian_cloud.image import sources  # noqa: E402 - the path is set above
from debian_cloud.names import RELEASES  # noqa: E402
from debian_cloud.plan import NAMESPACE, NAMESPACE_USER  # noqa: E402
from tests import one_line  # noqa: E402
from tests.configs import official  # noqa: E402
from tests.conftest import DISKS  # noqa: E402

ROOTED = NAMESPACE if os.geteuid() == 0 else NAMESPACE_USER
ROOT_OFFSET = 128 * 2**20


def run(*command: str | Path, folder: Path) -> str:
    """The standard output of a command."""
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{command}\n{done.stderr[-3000:]}")
    return done.stdout


def used(image: Path, offset: int) -> int:
    """The number of bytes that the files and tables of an ext4 file system take."""
    said = run("dumpe2fs", "-h", f"{image}?offset={offset}" if offset else str(image), folder=image.parent)
    fields = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
    blocks = int(fields["Block count"]) - int(fields["Free blocks"]) - int(fields.get("Overhead clusters", "0"))
    return blocks * int(fields["Block size"])


def compressed(image: Path, folder: Path, method: str) -> int:
    """The number of bytes of a disk's qcow2."""
    out = folder / f"{method}.qcow2"
    kind = ("-o", f"compression_type={method}")
    run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", *kind, image, out, folder=folder)
    return out.stat().st_size


def by_hand(suite: str, config: str, size: str, top: Path) -> Path:
    """Make a file system with the official packages, of the size of a disk."""
    known = sources.targets(run(*sources.INDEXTARGETS, folder=top))
    (top / "sources.list").write_text(one_line.as_lines(sources.debian(known, suite, expired=True)))
    packages = ",".join(sorted(official.packages(config, suite, "amd64")))
    bootstrap = ["mmdebstrap", "--quiet", "--mode=root", "--format=directory", "--variant=minbase"]
    run(*ROOTED, *bootstrap, f"--include={packages}", suite, "tree", "sources.list", folder=top)
    run(*ROOTED, "mke2fs", "-q", "-t", "ext4", "-E", "nodiscard", "-d", "tree", "root.img", size, folder=top)
    run(*ROOTED, "rm", "-rf", "tree", folder=top)
    return top / "root.img"


def main(world: Path) -> None:
    """Print the rows."""
    print(f"{'':24}{'root, ours':>11}{'official':>10}{'qcow2, ours':>13}{'official':>10}{'ratio':>7}", flush=True)
    for name, (suite, config) in DISKS.items():
        (raw,) = (world / "images").glob(f"debian-{RELEASES[suite]}-{config}-amd64-*.raw")
        top = Path(tempfile.mkdtemp(prefix="sizes."))
        top.chmod(0o755)
        theirs = by_hand(suite, config, f"{raw.stat().st_size >> 20}M", top)
        roots = used(raw, ROOT_OFFSET), used(theirs, 0)
        disks = compressed(raw, top, "zstd"), compressed(theirs, top, "zlib")
        row = "".join(
            f"{size >> 20:>{width}}" for size, width in zip((*roots, *disks), (11, 10, 13, 10), strict=True)
        )
        label = name if "/" in name else f"trixie/{name}"
        print(f"{label:24}{row}{disks[0] / disks[1]:>7.2f}", flush=True)
        shutil.rmtree(top)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
