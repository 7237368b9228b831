# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes to one image: which are refused, how apt resolves them, and how the image is marked."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from debian_cloud import cli, names, plan
from debian_cloud.build import steps as build_steps
from debian_cloud.cli import options
from debian_cloud.errors import USAGE, Error
from debian_cloud.host import run
from debian_cloud.host.checksums import Digest
from debian_cloud.host.progress import Progress
from debian_cloud.image import custom, index, metadata
from debian_cloud.image.buildinfo import Buildinfo, Draft
from debian_cloud.image.resolution import Resolution
from tests import throwaway
from tests.command import debian_cloud, refused
from tests.samples import ARCHIVE, DEBIAN, RESOLUTION
from tests.throwaway import FINE, Archive, configuration

SEED = "# comment\n\ntzdata tzdata/Areas select Europe\n"
CHANGED = custom.custom("htop, g++,htop", "nano", SEED, "x")


@pytest.mark.parametrize(
    "name",
    ["Vim", "v", "vim=2", "vim/trixie", "~nvim", "?essential", "-vim", "a b", "../x", "vim*", "vim:i386", "ü1"],
)
@pytest.mark.parametrize("option", ["--add", "--remove"])
def test_a_name_that_is_no_debian_package_name(name: str, option: str) -> None:
    with pytest.raises(Error, match="is not a Debian package name") as error:
        custom.custom(**{option.strip("-"): f"htop,{name}"})
    assert (error.value.status, option in error.value.message) == (USAGE, True)


def test_no_package_is_both_added_and_removed() -> None:
    with pytest.raises(Error, match="htop is both added and removed") as error:
        custom.custom("vim,htop", "nano,htop")
    assert error.value.status == USAGE


@pytest.mark.parametrize(
    "name", ["x_y", "-x", "x-", "x..y", ".x", "x.", "a b", "x\n", "1.2.3.4", "a" * 64, "ü", ".".join(["a" * 16] * 4)]
)
def test_a_host_name_that_is_none(name: str) -> None:
    with pytest.raises(Error, match="is not a host name") as error:
        custom.custom(hostname=name)
    assert error.value.status == USAGE


@pytest.mark.parametrize("name", ["x", "X-1", "3com", "a.example.org", "a" * 63])
def test_a_host_name(name: str) -> None:
    assert custom.custom(hostname=name).hostname == name


@pytest.mark.parametrize("path", ["etc/x", "/", "/a b", "/a\n", "//a", "/a/"])
def test_a_path_to_keep_that_is_none(path: str) -> None:
    with pytest.raises(Error, match="is not a path of an image") as error:
        custom.custom(keep=f"/etc/y,{path}")
    assert error.value.status == USAGE


def test_what_everybody_may_have_is_said() -> None:
    kept = custom.custom(keep="/etc/x/**,/boot/initrd.img-*:etc/y,/etc/x/**")
    assert kept.lines == ("keep /etc/x/**", "keep /boot/initrd.img-*:etc/y")
    _, buildinfo = described(replace(RESOLUTION, custom=kept))
    assert "Image-Changes:\n keep /etc/x/**\n keep /boot/initrd.img-*:etc/y\n" in buildinfo
    assert Buildinfo.parse(buildinfo, "x").changes == kept.lines
    steps = changed_plan(kept)
    (scrub,) = (
        step.argv for step in steps if isinstance(step, plan.Run) and step.argv[:2] == ("debian-cloud", "scrub")
    )
    assert scrub[2:] == ("--keep=/etc/x/**", "--keep=/boot/initrd.img-*:etc/y", plan.TREE)


SEEDS = (
    ("tzdata tzdata/Areas select Europe", ""),
    ("  a a/b boolean true\r\n\n # c\nd d/e string", ""),
    ("a a/b multiselect x, \\\n y\n", ""),
    ("debconf debconf/priority seen true\n", ""),
    ("\n\nfoo bar\n", "line 3 "),
    ("a a/b string x\\\ny\nword\n", "line 3 "),
    ("d-i partman-auto/method string lvm\nbroken\n", "line 2 "),
    ("a a/b selct x\n", "line 1 of the seed has the unknown type selct"),
    ("#!/bin/sh\necho hello\n", "line 2 "),
)


@pytest.mark.parametrize(("text", "said"), SEEDS)
def test_a_seed_is_checked_line_by_line(text: str, said: str) -> None:
    if not said:
        custom.check_seed(text)
        return
    with pytest.raises(Error, match=said) as error:
        custom.check_seed(text)
    assert error.value.status == USAGE
    assert error.value.hint


@pytest.mark.skipif(os.geteuid() != 0, reason="debconf-set-selections opens the machine's database, as root")
@pytest.mark.parametrize(("text", "said"), SEEDS)
def test_debconf_itself_agrees(text: str, said: str) -> None:
    done = subprocess.run(
        ["debconf-set-selections", "--checkonly"], input=text, text=True, capture_output=True, check=False, timeout=60
    )
    assert bool(said) == bool(done.returncode or "warning" in done.stderr), done.stderr


def test_the_preferences_are_a_pin_for_each_package() -> None:
    assert custom.Custom(remove=("nano", "g++")).preferences == (
        "Package: nano\nPin: version *\nPin-Priority: -1\n\nPackage: g++\nPin: version *\nPin-Priority: -1\n"
    )


def test_a_try_has_a_name_of_its_own() -> None:
    """The number in its serial is the same for the same changes, and never an official image's."""
    tries = [custom.custom(add=f"p{n}").number for n in range(200)]
    assert custom.OFFICIAL.number == 0
    assert len({*tries}) > 190
    assert all(names.serial(f"20261121.{number}") and number >= 1000 for number in tries)
    assert custom.custom(add="p1,p1").number == tries[1]


def changed_plan(changed: custom.Custom) -> plan.Plan:
    resolution = replace(RESOLUTION, custom=changed, pins=changed.preferences)
    return build_steps.plan(resolution, "20261121.0", ("raw", "qcow2"), DEBIAN, ARCHIVE)


def written(steps: plan.Plan) -> dict[str, str]:
    return {step.path: step.text for step in steps if isinstance(step, plan.Write)}


def test_changes_reach_the_plan_and_leave_no_file_of_the_builder_s() -> None:
    steps = changed_plan(CHANGED)
    assert written(steps)["answers"].endswith(SEED)
    (removed,) = (s for s in steps if isinstance(s, plan.Run) and s.title == "remove what the installation needed")
    assert f"{plan.TREE}/etc/hostname" in removed.argv
    (named,) = (s for s in steps if isinstance(s, plan.Run) and f"{plan.TREE}/etc/hostname" in s.argv and s.stdin)
    assert named.stdin == "x\n"
    assert steps.index(named) > steps.index(removed)


def test_an_official_image_has_none_of_it() -> None:
    steps = changed_plan(custom.OFFICIAL)
    assert SEED not in written(steps)["answers"]
    assert not any(isinstance(s, plan.Run) and f"{plan.TREE}/etc/hostname" in s.argv and s.stdin for s in steps)


def described(resolution: Resolution) -> tuple[str, str]:
    """The record and the .buildinfo."""
    known = Draft.parse(Draft.of(resolution, "20261121.0", ("qcow2",), DEBIAN, "0" * 64).render())
    digest = Digest(1, {"sha256": "a" * 64, "sha512": "b" * 128, "sha1": "c" * 40, "md5": "d" * 32})
    digests = {f"{known.buildinfo.stem}.qcow2": digest}
    return metadata.record(known, digests), known.buildinfo.sealed(digests).render(())


def test_a_changed_image_says_so_and_what() -> None:
    record, buildinfo = described(replace(RESOLUTION, custom=CHANGED))
    assert "Official: no\n" in record
    assert [r.official for r in index.parse(record, strict=True)] == [False]
    seed = hashlib.sha256(SEED.encode()).hexdigest()
    assert f"Image-Changes:\n add htop\n add g++\n remove nano\n seed {seed}\n hostname x\n" in buildinfo
    record, buildinfo = described(RESOLUTION)
    assert "Official" not in record
    assert "Image-Changes" not in buildinfo
    assert [r.official for r in index.parse(record, strict=True)] == [True]


# With real apt, on an archive of small configurations; the images share the configuration `layer`.


@pytest.fixture(scope="module")
def archive() -> Iterator[Archive]:
    with throwaway.folder() as top:
        layer = "debian-cloud-config-layer"
        clash = configuration(top / "debs", "clash", FINE)
        # Another file that base-files has, too.
        tree = top / "debs" / "clash"
        (tree / "etc").mkdir()
        (tree / "etc" / "host.conf").write_text("multi off\n")
        subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, clash], stdout=subprocess.DEVNULL, check=True)
        yield throwaway.archive(
            top,
            configuration(top / "debs", "layer", {}, depends="nano | editor, vim, systemd-timesyncd | time-daemon"),
            configuration(top / "debs", "fine", FINE, depends=layer),
            configuration(top / "debs", "other", FINE, depends=layer),
            configuration(top / "debs", "child", FINE, depends="debian-cloud-config-fine"),
            configuration(top / "debs", "wrong", {}, depends="base-files, debian-cloud-config-other"),
            configuration(top / "debs", "grandchild", FINE, depends="debian-cloud-config-wrong"),
            configuration(top / "debs", "wants", FINE | {"Recommends": "nosuch | tree | less, git"}),
            configuration(top / "debs", "wants-none", FINE | {"Recommends": "tree, nosuch | neither"}),
            clash,
        )


REFUSED: tuple[tuple[str, tuple[str, ...], int, tuple[str, ...]], ...] = (
    ("fine", ("--add", "htopp"), 1, ("has the package htopp", "did you mean htop?")),
    ("fine", ("--add", "qqqqzzzz"), 1, ("no signed source of trixie has the package qqqqzzzz",)),
    ("fine", ("--add", "editor"), 2, ("editor is a virtual package", "vim")),
    ("fine", ("--add", "debian-cloud-config-other"), 2, ("is an image of its own",)),
    ("fine", ("--remove", "nanoo"), 2, ("has the package nanoo", "did you mean nano?")),
    (
        "fine",
        ("--remove", "vim"),
        1,
        ("vim cannot be removed: debian-cloud-config-layer depends on it", "debian-cloud new"),
    ),
    ("fine", ("--remove", "systemd-timesyncd"), 1, ("debian-cloud-config-layer depends on it", "add a replacement")),
    ("fine", ("--remove", "nano,vim"), 1, ("cannot be removed: debian-cloud-config-layer depends on it",)),
    ("fine", ("--remove", "debian-cloud-config-fine"), 2, ("is the image itself",)),
    ("fine", ("--remove", "bash"), 2, ("bash is part of every Debian system",)),
    ("fine", ("--remove", "apt"), 2, ("apt is part of every Debian system",)),
    ("fine", ("--add", "g++", "--remove", "gcc"), 1, ("gcc cannot be removed: g++ depends on it",)),
    ("fine", ("--add", "postfix,exim4-daemon-light"), 1, ("with postfix, exim4-daemon-light cannot be installed",)),
    ("child", (), 1, ("debian-cloud-config-child depends on debian-cloud-config-fine, which is another image",)),
    (
        "grandchild",
        (),
        1,
        ("debian-cloud-config-wrong depends on debian-cloud-config-other, which is another image",),
    ),
    ("wants-none", (), 1, ("recommends nosuch, which no signed source of trixie has", "suggest it instead")),
)
PLAIN = ("fine", "--json")
WANTED = ("wants", "--json")
NOT_WANTED = ("wants", "--json", "--remove", "git")
WITHOUT_NANO = ("fine", "--json", "--add", "htop", "--remove", "nano")
WITH_CHRONY = ("fine", "--json", "--add", "chrony", "--remove", "systemd-timesyncd")

# Many calls of the command: the indexes are read once, and each call has a process of its own.
MANY = """
import contextlib, json, os, sys, tempfile
from debian_cloud.packages import origin, words
from debian_cloud.__main__ import main
from debian_cloud.cli import parser
calls = json.load(sys.stdin)
with origin.of(words.places(parser("show").parse_args(calls[0]))) as read:
    origin.of = lambda *_: contextlib.nullcontext(read)
    answers = []
    for call in calls:
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            pid = os.fork()
            if pid == 0:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                status = 70
                try:
                    status = main(["show", *call])
                finally:
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(status)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            out.seek(0), err.seek(0)
            answers.append((status, out.read(), err.read()))
print(json.dumps(answers))
"""

Done = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def shown(archive: Archive) -> dict[tuple[str, ...], Done]:
    """The output of `debian-cloud show` for each call."""
    calls = [(name, *arguments) for name, arguments, _, _ in REFUSED]
    calls += [PLAIN, WANTED, NOT_WANTED, WITHOUT_NANO, WITH_CHRONY]
    given = json.dumps([[*call, *archive.sources] for call in calls])
    done = subprocess.run(
        [sys.executable, "-c", MANY], input=given, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    return {call: Done(call, *answer) for call, answer in zip(calls, answers, strict=True)}


@pytest.mark.parametrize(("name", "arguments", "status", "said"), REFUSED)
def test_what_apt_cannot_give(
    shown: dict[tuple[str, ...], Done], name: str, arguments: tuple[str, ...], status: int, said: tuple[str, ...]
) -> None:
    refused(shown[name, *arguments], status, *said, "hint:")


def packages(done: Done) -> set[str]:
    assert done.returncode == 0, done.stderr
    return {package["name"] for package in json.loads(done.stdout)["packages"]}


def test_packages_are_resolved_with_and_without(shown: dict[tuple[str, ...], Done]) -> None:
    plain, changed = packages(shown[PLAIN]), packages(shown[WITHOUT_NANO])
    assert {"nano", "vim", "systemd-timesyncd"} <= plain
    assert plain - changed == {"nano"}
    assert "htop" in changed - plain


def test_what_a_configuration_itself_recommends_is_in_its_image(shown: dict[tuple[str, ...], Done]) -> None:
    wanted, changed = packages(shown[WANTED]), packages(shown[NOT_WANTED])
    assert {"tree", "git"} <= wanted
    # The first available alternative is taken, and recommendations of other packages are not.
    assert not {"less", "patch", "ca-certificates"} & wanted
    assert "tree" in changed
    assert "git" not in changed


@pytest.mark.thorough
def test_a_machine_may_remove_what_is_recommended(archive: Archive) -> None:
    """It is marked as automatically installed, so apt may remove it with the configuration."""
    done = debian_cloud("plan", "wants", *archive.sources)
    assert done.returncode == 0, done.stderr
    marked = re.compile(r"^Package: (\S+)\nArchitecture: amd64\nAuto-Installed: 1$", re.MULTILINE)
    found = marked.findall(done.stdout)
    assert {"tree", "git"} <= {*found}
    assert not {"debian-cloud-config-wants", "debian-cloud-archive-keyring", "base-files"} & {*found}
    done = debian_cloud("plan", "wants", "--add", "git", *archive.sources)
    assert {*found} - {*marked.findall(done.stdout)} == {"git"}


def test_what_is_added_takes_the_place_of_what_is_removed(shown: dict[tuple[str, ...], Done]) -> None:
    changed = packages(shown[WITH_CHRONY])
    assert "chrony" in changed
    assert "systemd-timesyncd" not in changed


@pytest.mark.thorough
def test_what_was_left_out_once_is_there_the_next_time(archive: Archive) -> None:
    """The calls share the directory of indexes, in which the first one wrote a preferences file."""
    assert "nano" not in packages(debian_cloud("show", *WITHOUT_NANO, *archive.sources))
    assert "nano" in packages(debian_cloud("show", *PLAIN, *archive.sources))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seed", "/nowhere"], "seed /nowhere cannot be read: No such file"),
        (["--seed", "/"], "seed / cannot be read: Is a directory"),
        (["--seed", "/usr/bin/true"], "is not UTF-8 text"),
        (["--seed", "/etc/passwd"], "line 1 of the seed"),
        (["--hostname", "a_b"], "is not a host name"),
        (["--add", "Vim"], "is not a Debian package name"),
    ],
)
def test_wrong_use(arguments: list[str], said: str) -> None:
    """Wrong use is refused before any index is fetched: the test gives no archive."""
    for verb in ("plan", "build"):
        refused(debian_cloud(verb, "fine", *arguments), 2, said, "hint:")


def test_a_seed_is_named_by_its_file_s_own_hash(tmp_path: Path) -> None:
    path = tmp_path / "seed"
    path.write_bytes(b"a a/b string x\r\n# c")
    asked = options.build_request(cli.parser("build").parse_args(["fine", "--seed", str(path)]))
    assert asked.changed.lines == (f"seed {hashlib.sha256(path.read_bytes()).hexdigest()}",)


@pytest.mark.thorough
def test_a_build_whose_drop_in_collides(archive: Archive, tmp_path: Path) -> None:
    """In the output of apt and mmdebstrap, dpkg's error is found."""
    done = debian_cloud("build", "clash", *archive.sources, "--output", tmp_path)
    refused(done, 1, "debian-cloud-config-clash and base-files both have the file /etc/host.conf", "drop-in")
    assert "trying to overwrite" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def deb(folder: Path, name: str, path: str) -> Path:
    tree = folder / name
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        f"Package: {name}\nVersion: 1:1.0\nArchitecture: all\nMaintainer: Nobody <nobody@localhost>\nDescription: x\n"
    )
    (tree / path).parent.mkdir(parents=True)
    (tree / path).write_text(name)
    built = folder / f"{name}_1%3a1.0_all.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, built], stdout=subprocess.DEVNULL, check=True)
    return built


def test_a_drop_in_that_collides_is_told_in_one_sentence(tmp_path: Path) -> None:
    debs = [deb(tmp_path, name, "etc/ssh/x.conf") for name in ("openssh-server", "debian-cloud-config-hpc")]
    for folder in ("info", "updates"):
        (tmp_path / "root/var/lib/dpkg" / folder).mkdir(parents=True)
    (tmp_path / "root/var/lib/dpkg/status").touch()
    install = ("dpkg", "--root=root", "--force-not-root", "--log=/dev/null", "--unpack")
    steps = [plan.Run(f"install {path.name}", (*install, str(path))) for path in debs]
    run.carry_out((steps[0],), tmp_path, Progress(1, quiet=True))
    with pytest.raises(Error) as error:
        run.carry_out((steps[1],), tmp_path, Progress(1, quiet=True))
    assert error.value.message == (
        f"{steps[1].title}: debian-cloud-config-hpc and openssh-server both have the file /etc/ssh/x.conf"
    )
    assert "drop-in" in error.value.hint
    assert error.value.status == 1


def test_another_failure_keeps_its_tool_s_own_words(tmp_path: Path) -> None:
    step = plan.Run("fail", ("sh", "-c", "echo 'dpkg: error processing package x'; echo other; exit 3"))
    with pytest.raises(Error, match="sh failed with exit status 3") as error:
        run.carry_out((step,), tmp_path, Progress(1, quiet=True))
    assert re.search("processing package x\n +other", error.value.message)
