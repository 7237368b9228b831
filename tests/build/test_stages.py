# SPDX-License-Identifier: GPL-3.0-or-later
"""Stages: each package once, in an order that dpkg accepts, and the same first stages for images that share them."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from debian_cloud.build.stages import Stage, stages, with_dependencies
from debian_cloud.image.custom import Custom
from debian_cloud.image.resolution import Needs, Package, Resolution
from tests.samples import RESOLUTION, configured

EC2 = "debian-cloud-config-ec2"
COMMON = "debian-cloud-config-common"
CLOUD = "debian-cloud-config-cloud"
KEYRING = "debian-cloud-archive-keyring"


def needs(*depends: str, pre: tuple[str, ...] = ()) -> Needs:
    """Dependencies; "a | b" are alternatives."""
    return Needs(*(tuple(tuple(group.split(" | ")) for group in groups) for groups in (pre, depends)))


KERNEL = "linux-image-cloud-amd64"
GRAPH = {
    "libc6": needs(),
    "bash": needs(pre=("libc6",)),
    "apt": needs("libc6", "gpgv"),
    "gpgv": needs("libc6"),
    "systemd": needs("libsystemd", pre=("libsystemd",)),
    "libsystemd": needs("libc6"),
    "openssh-server": needs("systemd", "libc6"),
    "awscli": needs("libc6"),
    COMMON: needs("systemd"),
    CLOUD: needs(COMMON, "openssh-server"),
    EC2: needs(COMMON, CLOUD, KERNEL),
    KERNEL: needs("libc6"),
    KEYRING: needs(),
    "vim": needs("libc6"),
}


def resolution(graph: dict[str, Needs], **changes: object) -> Resolution:
    packages = tuple(Package(name, "1", "amd64", 1, "0" * 64) for name in sorted(graph))
    found = replace(RESOLUTION, packages=packages, needs=graph, essential=("bash", "libc6"), required=("apt",))
    return replace(found, **changes)


def members(found: tuple[Stage, ...]) -> dict[str, set[str]]:
    return {stage.name: {*stage.packages} for stage in found}


def test_stages_follow_the_packages_of_configuration() -> None:
    found = stages(resolution(GRAPH, recommended=("awscli",), custom=Custom(add=("vim",))))
    assert [*members(found).items()] == [
        ("essential", {"bash", "libc6"}),
        ("base", {"apt", "gpgv"}),
        ("common", {COMMON, "systemd", "libsystemd"}),
        ("cloud", {CLOUD, "openssh-server"}),
        ("boot", {KERNEL}),
        ("needs", {"awscli", KEYRING}),
        ("ec2", {EC2}),
        ("added", {"vim"}),
    ]


def test_what_needs_the_configuration_comes_with_it() -> None:
    graph = {**GRAPH, EC2: needs(COMMON, "agent"), "agent": needs("libc6", "plugin"), "plugin": needs(EC2)}
    assert members(stages(resolution(graph)))["ec2"] == {EC2, "agent", "plugin"}


def test_a_package_comes_with_all_that_it_needs() -> None:
    assert with_dependencies({"systemd", "bash"}, resolution(GRAPH)) == {"systemd", "libsystemd", "libc6", "bash"}


def test_images_of_the_same_layers_share_their_first_stages() -> None:
    gce = "debian-cloud-config-gce"
    other = {name: of for name, of in GRAPH.items() if name not in (EC2, "awscli")}
    other |= {gce: needs(COMMON, CLOUD, KERNEL, "agent"), "agent": needs("libc6")}
    config = replace(configured({"Image-Format": "tar.xz"}, "gce"), name=gce)
    one, two = stages(resolution(GRAPH)), stages(resolution(other, config=config))
    assert one[:5] == two[:5]
    assert [stage.name for stage in two[4:]] == ["boot", "needs", "gce", "added"]


def test_what_is_needed_before_unpacking_is_configured_in_a_round_before() -> None:
    (common,) = (stage for stage in stages(resolution(GRAPH)) if stage.name == "common")
    assert [(one.unpack, one.configure) for one in common.rounds] == [
        ((COMMON, "libsystemd"), ("libsystemd",)),
        (("systemd",), ()),
    ]


def test_of_alternatives_the_one_that_is_there_counts() -> None:
    graph = {**GRAPH, EC2: needs("mawk | gpgv", "postfix | exim4"), "postfix": needs(), "exim4": needs()}
    found = members(stages(resolution(graph)))
    assert found["needs"] == {"postfix", KEYRING}
    assert "exim4" in found["added"]


@pytest.mark.parametrize("pre", [True, False])
def test_a_circle_ends(pre: bool) -> None:
    """Without Pre-Depends dpkg cuts it (deb-control(5)); with them, dpkg says what is wrong."""

    def of(name: str) -> Needs:
        return needs(pre=(name,)) if pre else needs(name)

    graph = {**GRAPH, EC2: needs("a"), "a": of("b"), "b": of("c"), "c": of("a")}
    assert members(stages(resolution(graph)))["needs"] == {"a", "b", "c", KEYRING}


def test_a_long_chain_is_no_recursion() -> None:
    chain = {f"p{number}": needs(f"p{number + 1}") for number in range(20_000)} | {"p20000": needs()}
    graph = {**GRAPH, **chain, EC2: needs("p0")}
    assert len(members(stages(resolution(graph)))["needs"]) == 20_002


@pytest.mark.parametrize("seed", range(40))
def test_each_package_is_unpacked_once_when_dpkg_accepts_it(seed: int) -> None:
    """Dpkg unpacks a package if what it Pre-Depends on is configured, and configures it after what it Depends on."""
    of = random.Random(seed)
    names = [f"p{number}" for number in range(60)]
    graph = {
        name: Needs(
            *(tuple(tuple(of.sample(names[:at], 1)) for _ in range(of.randrange(3))) if at else () for _ in range(2))
        )
        for at, name in enumerate(names)
    }
    graph[EC2] = Needs(depends=tuple((name,) for name in of.sample(names, 5)))
    found = stages(resolution(graph, essential=("p0",), required=tuple(of.sample(names[1:], 3))))
    assert sorted(name for stage in found for name in stage.packages) == sorted(graph)
    configured_, unpacked = set[str](), set[str]()
    for stage in found:
        for one in stage.rounds:
            for name in one.unpack:
                assert all({*group} & configured_ for group in graph[name].pre_depends), (stage, name)
            unpacked |= {*one.unpack}
            now = {*(one.configure or unpacked)}
            assert now <= unpacked
            for name in now:
                assert all({*group} & (configured_ | now) for group in graph[name].depends)
            configured_ |= now
            unpacked -= now
        assert not unpacked, "each stage ends with a whole system"
