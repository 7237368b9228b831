# SPDX-License-Identifier: GPL-3.0-or-later
"""One command turns one vendor's machine into another's, equal to one that was that vendor's from the beginning."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from debian_cloud.image.generated import matches
from tests.built.dpkg import Dpkg
from tests.built.tree import Entry, Tree


@dataclass(frozen=True, slots=True)
class State:
    """The parts of a system that depend on its configuration."""

    packages: dict[str, str]
    automatic: set[str]
    removable: set[str]
    kept: set[str]
    """Packages that are removed but not purged."""
    settings: dict[str, Entry]
    """All files in /etc that packages own, and all files of the configurations anywhere."""
    generated: dict[str, Entry]
    """All other files in /etc."""


def state(tree: Tree) -> State:
    dpkg = Dpkg(tree.path)
    entries = tree.entries("etc", "usr")
    ours = {
        path for path, owners in dpkg.owners.items() if any(it.startswith("debian-cloud-config") for it in owners)
    }
    etc = {path: entry for path, entry in entries.items() if path == "etc" or path.startswith("etc/")}
    settings = {
        path: entry for path, entry in entries.items() if path in ours or (path in etc and path in dpkg.owners)
    }
    simulated = tree.run("apt-get", "--simulate", "autoremove").stdout.splitlines()
    return State(
        packages=dpkg.installed,
        automatic=set(tree.run("apt-mark", "showauto").stdout.split()),
        removable={line.split()[1] for line in simulated if line.startswith("Remv ")},
        kept=set(dpkg.packages) - set(dpkg.installed),
        settings=settings,
        generated={path: entry for path, entry in etc.items() if path not in settings},
    )


def different(one: dict[str, Entry], other: dict[str, Entry]) -> list[str]:
    return sorted(path for path in {*one, *other} if one.get(path) != other.get(path))


@pytest.fixture(scope="module")
def quick(ec2: Tree, azure: Tree, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tree]:
    """An EC2 machine turned into an Azure machine by the shortest command."""
    yield from _switched(ec2, tmp_path_factory, "install", "debian-cloud-config-azure")


@pytest.fixture(scope="module")
def clean(ec2: Tree, azure: Tree, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tree]:
    """The same by the command that leaves nothing behind."""
    yield from _switched(ec2, tmp_path_factory, "--autoremove", "--purge", "install", "debian-cloud-config-azure")


@pytest.fixture(scope="module")
def back(clean: Tree, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tree]:
    """That machine turned back into an EC2 machine."""
    yield from _switched(clean, tmp_path_factory, "--autoremove", "--purge", "install", "debian-cloud-config-ec2")


def _switched(origin: Tree, tmp_path_factory: pytest.TempPathFactory, *arguments: str) -> Iterator[Tree]:
    tree = origin.copy(tmp_path_factory.mktemp("switched") / "tree")
    tree.apt(*arguments)
    yield tree
    tree.remove()


DIFFERENT = (
    ("etc/passwd", "ids of system users are given in the order of installation; removed packages leave theirs"),
    ("etc/group", "the same"),
    ("etc/shadow", "the same"),
    ("etc/gshadow", "the same"),
    ("etc/*-", "the databases before the last change"),
    ("etc/ssh/ssh_host_*", "made on each machine"),
    ("etc/machine-id", "made on each machine"),
)
"""Path in /etc without a package -> why it may differ between a switched machine and an original one."""


def unexpected(paths: list[str]) -> list[str]:
    return [path for path in paths if not any(matches(pattern, path) for pattern, _ in DIFFERENT)]


@pytest.mark.thorough
def test_the_vendors_differ(ec2: Tree, azure: Tree) -> None:
    """The vendors' machines differ, so the comparisons below have a meaning."""
    one, other = state(ec2), state(azure)
    assert {"amazon-ec2-utils", "systemd-timesyncd"} <= set(one.packages) - set(other.packages)
    assert {"waagent", "chrony", "hyperv-daemons"} <= set(other.packages) - set(one.packages)
    changed = different(one.settings, other.settings)
    assert {"etc/cloud/cloud.cfg.d/92_debian-cloud-config.cfg", "etc/default/chrony"} <= set(changed)
    for system in (one, other):
        assert system.removable == set()
        assert system.kept == set()


@pytest.mark.thorough
def test_one_command_makes_the_other_vendors_machine(ec2: Tree, azure: Tree, quick: Tree) -> None:
    was, want, have = state(ec2), state(azure), state(quick)
    assert {"debian-cloud-config-azure"} == {
        name for name in have.packages if name.startswith("debian-cloud-config-") and name not in was.packages
    }
    assert "debian-cloud-config-ec2" not in have.packages
    # Only packages that apt would autoremove are left over.
    assert want.packages.items() <= have.packages.items()
    assert set(have.packages) - set(want.packages) == have.removable
    assert have.automatic - have.removable == want.automatic
    # Conffiles of a removed package stay until it is purged; they must not configure the new one.
    assert have.kept == {"debian-cloud-config-ec2", "systemd-timesyncd"}
    too_much = {path for path in have.settings if path not in want.settings}
    owners = Dpkg(quick.path).owners
    gone = have.kept | have.removable
    assert {path for path in too_much if not owners[path] & gone} == set()
    assert different({path: have.settings[path] for path in want.settings}, want.settings) == []


@pytest.mark.thorough
def test_with_purge_nothing_is_left_of_the_first_vendor(azure: Tree, clean: Tree) -> None:
    want, have = state(azure), state(clean)
    assert have.packages == want.packages
    assert have.automatic == want.automatic
    assert have.kept == set()
    assert different(have.settings, want.settings) == []
    assert unexpected(different(have.generated, want.generated)) == []


STAYS = {
    "python3-passlib": "cloud-init suggests it, and apt keeps what another package suggests",
    "python3-legacycrypt": "python3-passlib depends on it",
}
"""Package of Azure's -> why apt does not remove it with Azure's configuration."""


@pytest.mark.thorough
def test_there_and_back_is_the_same_machine(ec2: Tree, back: Tree) -> None:
    want, have = state(ec2), state(back)
    assert want.packages.items() - have.packages.items() == set()
    assert set(have.packages) - set(want.packages) == set(STAYS)
    assert have.automatic == want.automatic | set(STAYS)
    assert have.kept == set()
    # An empty directory of apparmor, which the purge of chrony removes (dh_apparmor(1)).
    assert different(have.settings, want.settings) == ["etc/apparmor.d/disable"]
    assert unexpected(different(have.generated, want.generated)) == []
