# SPDX-License-Identifier: GPL-3.0-or-later
"""dpkg in stages installs what mmdebstrap(1) installs of the same packages: every difference is in a closed list."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from debian_cloud.names import KEYRING_PACKAGE
from debian_cloud.packages import described
from tests.built.conftest import Root, unpacked
from tests.built.tree import Entry, Tree, as_root, debian_sources
from tests.conftest import ALL, SUITE, World

CONFIGS = ("container", "ec2") if ALL else ("container",)

# Later steps of a plan write or remove these, or they are another at each installation.
OF_LATER_STEPS = re.compile(
    r"(dev|run|tmp|proc|sys|var/tmp|var/log|var/lib/apt/lists|var/cache/(apt|ldconfig)|boot/(grub|efi))(/.*)?"
    r"|etc/(hostname|fstab|machine-id|resolv\.conf|\.resolv\.conf\..*|cloud-release|default/locale|locale\.conf)"
    r"|etc/apt/sources\.list(\.d/.*)?|etc/grub\.d/enable_cloud|etc/ssh/ssh_host_.*|etc/(group|gshadow|passwd|shadow)-"
    r"|.*(-old|\.old|\.pwd\.lock)|var/lib/dbus/machine-id|var/lib/systemd/(random-seed|credential\.secret)"
    r"|etc/ssl/(private/ssl-cert-snakeoil\.key|certs/ssl-cert-snakeoil\.pem)"
)
# mmdebstrap's own, and a file that only dpkg --add-architecture makes.
OF_MMDEBSTRAP = re.compile(
    r"etc/(apt/apt\.conf\.d|dpkg/dpkg\.cfg\.d|apt/preferences\.d)/99mmdebstrap|var/lib/dpkg/arch"
)
# The same lines in another order: dpkg configures packages in another one. Of accounts, the ids are another, too.
OF_ORDER = re.compile(
    r"var/lib/(dpkg/triggers/.*|ucf/(hashfile|registry)(\.\d+)?|apt/extended_states)|etc/(group|gshadow|passwd|shadow)"
)
# mandb(8) writes a tag into the directories of languages that were there when it ran.
OF_MANDB = re.compile(r"var/cache/man/[^/]+/CACHEDIR\.TAG")
# deb-systemd-helper(1) names /lib, which is /usr/lib, if systemctl is not unpacked yet.
LIB = re.compile(r"^(/usr)?/lib/")


@pytest.fixture(scope="module", params=CONFIGS)
def image(request: pytest.FixtureRequest, world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    with unpacked(world, request.param, tmp_path_factory.mktemp("image")) as found:
        yield found


@pytest.fixture
def other(image: Root, world: World, tmp_path: Path) -> Iterator[Tree]:
    """The tree that mmdebstrap makes of the image's packages."""
    (file,) = (world.folder / "images").glob(f"debian-*-{image.config}-amd64-{image.serial}.buildinfo")
    epoch = described.of(file).epoch
    asked = [f"debian-cloud-config-{image.config}", KEYRING_PACKAGE]
    asked += ["awscli"] if image.config == "ec2" else []
    sources = tmp_path / "sources.list"
    line = f"deb [signed-by={world.keyring}] copy:{world.public} {SUITE} main\n"
    sources.write_text(debian_sources(SUITE) + line, "utf-8")
    # A machine's name and resolver are in no image, and two answers are given as the builder does.
    clean = 'cd "$1/etc" && rm -f hostname resolv.conf && : >resolv.conf && echo localhost >hostname'
    answers = "locales locales/default_environment_locale select C.UTF-8"
    answers += r"\ngrub2 grub2/force_efi_extra_removable boolean true" if image.config == "ec2" else ""
    done = subprocess.run(
        as_root(
            *("mmdebstrap", "--mode=root", "--format=directory", "--variant=minbase", "--dpkgopt=force-unsafe-io"),
            *(f"--include={','.join(asked)}", '--aptopt=APT::Sandbox::User "root"', f"--setup-hook={clean}"),
            rf"""--essential-hook=printf '{answers}\n' | chroot "$1" debconf-set-selections""",
            *(SUITE, tmp_path / "tree", sources),
        ),
        env={
            **os.environ,
            "SOURCE_DATE_EPOCH": str(epoch),
            "PYTHONDONTWRITEBYTECODE": "1",
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
        },
        umask=0o022,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    tree = Tree(tmp_path / "tree")
    yield tree
    tree.remove()


@pytest.mark.thorough
def test_the_tree_is_that_of_mmdebstrap(image: Root, other: Tree) -> None:
    own, theirs = image.tree.entries(), other.entries()
    assert len(own) > 5000
    assert [*differences(image.tree, own, other, theirs)] == []


def differences(tree: Tree, own: dict[str, Entry], other: Tree, theirs: dict[str, Entry]) -> Iterator[str]:
    for path in sorted({*own, *theirs}):
        if OF_LATER_STEPS.fullmatch(path) or OF_MMDEBSTRAP.fullmatch(path) or OF_MANDB.fullmatch(path):
            continue
        mine, its = own.get(path), theirs.get(path)
        if mine is None or its is None:
            yield f"{path}: only in {'the image' if its is None else 'what mmdebstrap made'}"
        elif known(mine, path) != known(its, path):
            yield f"{path}: {mine} {its}"
        elif OF_ORDER.fullmatch(path) and content(tree, path) != content(other, path):
            yield f"{path}: other lines"


def known(entry: Entry, path: str) -> tuple[str, ...]:
    """What must be the same of a path."""
    target = LIB.sub("/usr/lib/", entry.target)
    return entry.kind, entry.mode, entry.owner, target, "" if OF_ORDER.fullmatch(path) else entry.md5


def content(tree: Tree, path: str) -> list[str]:
    """The lines of a file, sorted; of accounts without ids, of apt's list its stanzas."""
    text = tree.text(path)
    if path.endswith("extended_states"):
        return sorted(text.split("\n\n"))
    if path.startswith("etc/"):
        text = re.sub(r"(?<=:)\d+(?=[:\n])", "", text)
    return sorted(text.splitlines())


@pytest.mark.thorough
def test_a_difference_that_is_not_in_the_list_is_found(image: Root, tmp_path: Path) -> None:
    tree = image.tree.copy(tmp_path / "tree")
    try:
        tree.run("sh", "-c", "echo x >>/etc/bash.bashrc; chmod 600 /etc/passwd; rm /bin/ls; touch /x")
        found = [*differences(image.tree, image.tree.entries(), tree, tree.entries())]
        assert sorted(line.partition(":")[0] for line in found) == [
            "etc/bash.bashrc",
            "etc/passwd",
            "usr/bin/ls",
            "x",
        ]
    finally:
        tree.remove()
