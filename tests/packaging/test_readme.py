# SPDX-License-Identifier: GPL-3.0-or-later
"""README's blocks of commands, pasted one after the other by an ordinary user of a fresh Debian.

The home directory is closed to others (mode 0700), systemd runs, and cloud.example.org is the machine
itself. `make check` uses Debian 13 and builds two images; for the other lines, images are only planned.
`make check-all` builds all of them, and also runs README on Debian 12.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.conftest import ALL
from tests.packaging import fresh
from tests.packaging.build import ROOT, copy

if TYPE_CHECKING:
    from collections.abc import Iterator

TUN: Final = Path("/dev/net/tun")
SUITES: Final = ("trixie", "bookworm") if ALL else ("trixie",)
SERVED: Final = "/srv/debian-cloud/archive"
ELSEWHERE: Final = {
    # `make check` and `make demo` themselves.
    ("Two commands", 0),
    # Machines that boot: tests/built/test_boot.py pastes them.
    ("Boot it, and log in", 1),
    ("Boot it, and log in", 2),
    ("Boot it, and log in", 3),
}
"""Blocks that other tests run."""
# A gpg that needs a passphrase gets none.
NO_PASSPHRASE: Final = "batch\npinentry-mode loopback\npassphrase-file /dev/null\n"
# A user's machine does not have an archive of the user's own, which would be used first.
NO_OWN: Final = "export XDG_CONFIG_HOME=~/none"
IMAGE: Final = "$(basename images/debian-*-ec2-*.raw .raw)"


@dataclass(frozen=True, slots=True)
class Block:
    """A block of README: commands before it, replacements in it, and its expected output.

    The replacements in `quick` are also made if images are not built again. All patterns are regular expressions.
    """

    section: str
    number: int
    before: str = ""
    replaced: tuple[tuple[str, str], ...] = ()
    quick: tuple[tuple[str, str], ...] = ()
    shows: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.section}, {self.number + 1}"


PLANNED: Final = (
    (r"^debian-cloud build (generic\b.*?|my-hpc)(?: --output images)?$", r"debian-cloud plan \1 >plan"),
)
WALK: Final = (
    Block("A first image in three commands", 0),
    Block(
        "A first image in three commands",
        1,
        shows=(
            rf"known by: +{fresh.HOME}/\.config/debian-cloud/archive\.sources",
            r"accepted: debian-cloud_\S+_amd64\.changes",
        ),
    ),
    # The image is there, and so is all that it was made of.
    Block(
        "The cache, and building without a network",
        0,
        shows=(r"debian-13-ec2-\S+", r"packages: \d+, ", "as they were kept", "packages and layers take"),
    ),
    Block(
        "Take it to a cloud",
        0,
        quick=((r"^debian-cloud build ((?:azure|gce|ec2) .*)$", r"debian-cloud plan \1 >plan"),),
    ),
    # tests/built/test_boot.py starts and enters it.
    Block(
        "Boot it, and log in",
        0,
        replaced=(
            (r"\bIMAGE\.qcow2", f"images/{IMAGE}.qcow2"),
            (r"^(debian-cloud run .*)$", r"\1 --dry-run"),
            (r"^debian-cloud (ssh|terminate) try$", "debian-cloud instances"),
        ),
        shows=("would start try",),
    ),
    Block(
        "Run your own archive in ten minutes",
        0,
        shows=(rf"archive +{SERVED} as http://cloud\.example\.org", r"suite +trixie: \d\d packages; images: none"),
    ),
    Block("Run your own archive in ten minutes", 1),
    Block("Run your own archive in ten minutes", 2, shows=("http://cloud.example.org",)),
    Block(
        "Run your own archive in ten minutes",
        3,
        # The upload of another user.
        before=f"""
            install -d -m 700 ~/.gnupg && printf '{NO_PASSPHRASE}' >~/.gnupg/gpg.conf
            debian-cloud new theirs --from generic --maintainer "You <you@example.org>"
            (cd debian-cloud-config-theirs && dpkg-buildpackage -us -uc) >theirs.log 2>&1""",
        replaced=((r"\bFILE\.changes", "debian-cloud-config-theirs_*.changes"),),
    ),
    Block("A worked example", 0, quick=PLANNED, shows=("debian-cloud-config-generic", "mirrored|shown|verified")),
    Block("A worked example", 1, before=NO_OWN, shows=(r"ec2 ", r"\.qcow2")),
    Block(
        "What is in an image, and what changed", 0, replaced=((r"(IMAGE|OLD|NEW)\.qcow2", f"images/{IMAGE}.qcow2"),)
    ),
    Block(
        "Proof",
        0,
        # In another directory, because the image built above has the same name.
        before=f"{NO_OWN}; image={IMAGE}; mkdir -p ~/fetched; cd ~/fetched",
        replaced=((r"\bIMAGE\b", "$image"),),
        quick=(
            (r"debian-cloud verify (\S+)", r"debian-cloud verify \1 --rebuilt \1"),
            (r"debian-cloud rebuild (\S+)", r"debian-cloud plan ec2 --lock \1 >plan"),
            (r"debian-cloud build (ec2 --lock \S+) --output again", r"debian-cloud plan \1 >plan"),
        ),
        shows=("every path|each path|explained",),
    ),
    Block("An image of one's own", 0, before="touch preseed.cfg", quick=PLANNED),
    Block("An image of one's own", 1, quick=PLANNED, shows=("accepted: debian-cloud-config-my-hpc_",)),
    Block(
        "Keep it",
        0,
        replaced=(
            (r"trixie/ec2/amd64/20261121\.0", f"$(cd {SERVED}/public/images && echo trixie/ec2/amd64/2*)"),
            # Retiring the key now would lock out machines that were off for some days: the verb refuses, and names
            # the day.
            (r"^(debian-cloud-archive retire-key \S+ )FINGERPRINT", r"refused \1$(cat fingerprint)"),
        ),
        before=f"""
            refused() {{ if "$@"; then exit 9; fi; }}
            gpg --show-keys --with-colons {SERVED}/keyring.gpg >keys
            awk -F: '$1 == "fpr" {{ print $10; exit }}' keys >fingerprint""",
        shows=("withdrawn", "--now"),
    ),
)


def blocks() -> dict[tuple[str, int], str]:
    """Section and number -> the commands of each block of README."""
    found: dict[tuple[str, int], str] = {}
    for section in (ROOT / "README.md").read_text("utf-8").split("\n## ")[1:]:
        title, _, text = section.partition("\n")
        pasted = re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        found |= {(title, number): block for number, block in enumerate(pasted)}
    return found


def test_no_block_is_left_out() -> None:
    assert set(blocks()) == ELSEWHERE | {(block.section, block.number) for block in WALK}


@pytest.fixture(scope="module", params=SUITES)
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[fresh.Fresh]:
    if os.geteuid():
        pytest.skip("systemd-nspawn boots a system for root alone")
    if not TUN.exists():
        pytest.skip(f"the system's way to the network is {TUN}")
    folder = tmp_path_factory.mktemp("fresh")
    with fresh.booted(request.param, copy(ROOT, folder / "source"), folder) as system:
        yield system


@pytest.mark.parametrize("block", WALK, ids=str)
def test_a_block(machine: fresh.Fresh, block: Block) -> None:
    text = blocks()[block.section, block.number]
    for pattern, by in (*block.replaced, *(() if ALL else block.quick)):
        text, count = re.subn(pattern, by, text, flags=re.MULTILINE)
        assert count, f"{pattern} is not in README's block"
    shown = machine.run(f"{block.before}\n{text}", where="~/debian-cloud", seconds=3600)
    for pattern in block.shows:
        assert re.search(pattern, shown), f"{pattern}\n{shown[-4000:]}"


def test_what_systemd_does_for_an_archive(machine: fresh.Fresh) -> None:
    """The archive's timer and path units are active, and the other user's upload was accepted by them only."""
    units = machine.run("systemctl list-units --all --plain --no-legend 'debian-cloud-archive-*'")
    assert re.search(r"resign@\S+\.timer +loaded +active +waiting", units), units
    # It is running while it accepts uploads.
    assert re.search(r"queue@\S+\.path +loaded +active +(waiting|running)", units), units
    assert " failed " not in units, units
    machine.run("sudo apt-get -q update; apt-cache show debian-cloud-config-theirs")
