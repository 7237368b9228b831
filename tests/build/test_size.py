# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the resolved packages fit on the disk is known before anything is built."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from debian_cloud import plan
from debian_cloud.build import request, steps
from debian_cloud.disk import layout
from debian_cloud.errors import USAGE, Error
from debian_cloud.host import run
from debian_cloud.host.checksums import Digest
from debian_cloud.host.progress import Progress
from debian_cloud.image import custom, metadata
from debian_cloud.image.buildinfo import Buildinfo, Draft
from debian_cloud.image.config import ImageConfig
from debian_cloud.image.resolution import Resolution
from debian_cloud.packages import origin, resolver
from debian_cloud.text.sizes import in_words
from tests import throwaway
from tests.command import debian_cloud, refused
from tests.samples import ARCHIVE, CONFIG, CONTAINER, DEBIAN, RESOLUTION, SERIAL, configured
from tests.throwaway import FINE, Archive, configuration

MIB, GIB = layout.MIB, layout.GIB

# Installed-Size in MiB, packages, and the MiB that files and directories took in the file systems of built images.
BUILT = {"ec2": (468, 328, 569), "generic": (544, 328, 674), "nocloud": (480, 281, 598)}


@pytest.mark.parametrize(("installed", "count", "took"), BUILT.values(), ids=BUILT)
def test_images_took_no_more_than_was_foreseen(installed: int, count: int, took: int) -> None:
    """The estimate is at most a third too large."""
    assert took < layout.needed(installed * MIB, count) / MIB < took * 4 / 3


@pytest.mark.parametrize("size", [512 * MIB, 700 * MIB, GIB, 3 * GIB, 8 * GIB, 30 * GIB, 500 * GIB])
def test_there_is_the_room_that_mke2fs_leaves(tmp_path: Path, size: int) -> None:
    root = layout.layout("stem", size, "amd64", bios=True).root
    image, conf = tmp_path / "image", tmp_path / "mke2fs.conf"
    conf.write_text(steps._MKE2FS_CONF)
    extended = f"offset={root.start},nodiscard,assume_storage_prezeroed=1"
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run(
        ["mke2fs", "-q", "-F", "-t", "ext4", "-E", extended, image, f"{root.size // 1024}k"],
        env={**os.environ, "MKE2FS_CONFIG": str(conf)},
        check=True,
    )
    said = subprocess.run(
        ["dumpe2fs", "-h", f"{image}?offset={root.start}"], capture_output=True, text=True, check=True
    ).stdout
    fields = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
    left = (int(fields["Free blocks"]) - int(fields["Reserved block count"])) * layout.BLOCK
    assert left * 0.97 < layout.room(size) <= left


def test_the_number_is_the_least_one() -> None:
    for needed in (1, GIB, 10 * GIB, 400 * GIB):
        least = layout.least(needed)
        assert layout.room(least) >= needed
        assert least == GIB or layout.room(least - GIB) < needed


def test_a_size_is_said_as_the_field_says_it() -> None:
    assert [in_words(size) for size in (512 * MIB, GIB, 1536 * MIB, 12 * GIB, 2**41)] == [
        *("512M", "1G", "1536M", "12G", "2T")
    ]


def resolved(size: int, installed: int, changed: custom.Custom = custom.OFFICIAL) -> Resolution:
    return replace(RESOLUTION, config=replace(CONFIG, size=size), installed_size=installed, custom=changed)


def test_what_fits_is_not_refused() -> None:
    for size, (installed, count, _) in ((3 * GIB, figures) for figures in BUILT.values()):
        steps.check_size(replace(resolved(size, installed * MIB), packages=RESOLUTION.packages * (count // 2)))


def test_what_does_not_fit_is_refused_with_the_number() -> None:
    """480 MiB of packages do not fit on 512M, nor texlive-full's 8.5 GiB on 3G."""
    with pytest.raises(Error, match=r"the disk of ec2 is too small: it has 512M, but 2 packages .* need 1G") as error:
        steps.check_size(resolved(512 * MIB, 480 * MIB))
    assert error.value.hint == "set Image-Size to 1G; for a test, give --size 1G"
    with pytest.raises(Error, match=r"it has 3G, .* need 12G") as error:
        steps.check_size(resolved(3 * GIB, 8704 * MIB, custom.custom("texlive-full")))
    assert error.value.hint == "give --size 12G"
    steps.check_size(resolved(12 * GIB, 8704 * MIB, custom.custom("texlive-full", disk="12G")))


def test_a_root_file_system_has_no_size() -> None:
    steps.check_size(replace(RESOLUTION, config=configured(CONTAINER, "container"), installed_size=2**40))


@pytest.mark.parametrize("text", ["12", "0G", "12g", "12 G", "1.5G", "-1G", "511M", "65T", "12G\n", "x" * 200])
def test_a_size_that_is_none(text: str) -> None:
    with pytest.raises(Error, match="is not the size of a disk") as error:
        custom.custom(disk=text)
    assert error.value.status == USAGE
    assert "12G" in error.value.hint


class _Apt:
    """An apt that finds only one configuration."""

    def configuration(self, _name: str, _suite: str) -> ImageConfig:
        return CONFIG

    def resolve(self, config: ImageConfig, changed: custom.Custom, _kept: Buildinfo | None) -> Resolution:
        return replace(RESOLUTION, config=config, custom=changed, installed_size=100 * GIB)


def test_an_image_of_another_size_is_made_again_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """`rebuild` and `verify` rebuild an image of another size without checking the space, which was enough before."""
    monkeypatch.setattr(origin.Origin, "_ask_again", lambda *_: None)
    read = origin.Origin(DEBIAN, ARCHIVE, lambda: cast("resolver.Apt", _Apt()), Path("apt.conf"))
    changed = custom.custom(disk="12288M")
    assert changed.lines == ("size 12G",)
    first = replace(read.resolve("ec2", "trixie", changed), releases=RESOLUTION.releases)
    known = Draft.parse(Draft.of(first, SERIAL, ("qcow2",), DEBIAN, "1" * 64).render())
    digest = Digest(1, {"sha256": "a" * 64, "sha512": "b" * 128})
    digests = {f"{known.buildinfo.stem}.qcow2": digest}
    record = metadata.record(known, digests)
    assert f"Virtual-Size: {12 * GIB}\n" in record
    assert "Official: no\n" in record
    kept = Buildinfo.parse(known.buildinfo.sealed(digests).render(()), "x")
    assert kept.changes == ("size 12G",)
    monkeypatch.setattr(origin, "of_closure", lambda *_: contextlib.nullcontext(read))
    again = request.again(kept, Path("archive.gpg"))
    truncated = ("truncate", "-s", str(12 * GIB), f"{kept.stem}.raw")
    assert truncated in [step.argv for step in again.plan if isinstance(step, plan.Run)]


@pytest.mark.parametrize("what", ["block", "inode"])
def test_mke2fs_s_own_word_names_the_field(tmp_path: Path, what: str) -> None:
    """If the estimate was wrong, mke2fs's error names the field."""
    (tmp_path / "tree").mkdir()
    for number in range(200):
        (tmp_path / "tree" / str(number)).write_bytes(os.urandom(100_000 if what == "block" else 1))
    step = plan.Run(
        "make the file system", ("mke2fs", "-q", "-F", "-t", "ext4", "-N", "100", "-d", "tree", "x", "8M")
    )
    with pytest.raises(Error) as error:
        run.carry_out((step,), tmp_path, Progress(1, quiet=True))
    assert error.value.message == "make the file system: the disk of the image is too small for its content"
    assert error.value.hint == "set a larger Image-Size; for a test, give --size"


# With real apt.


@pytest.fixture(scope="module")
def archive() -> Iterator[Archive]:
    with throwaway.folder() as top:
        yield throwaway.archive(
            top,
            configuration(top / "debs", "big", {**FINE, "Installed-Size": "2000000"}),
            configuration(top / "debs", "tree", {"Image-Format": "tar.xz"}),
        )


def test_show_says_all_and_then_no(archive: Archive) -> None:
    done = debian_cloud("show", "big", *archive.sources)
    refused(done, 1, "the disk of big is too small: it has 1G", "need 3G", "hint: set Image-Size to 3G; for a test")
    assert "disk           1 GiB" in done.stdout
    done = debian_cloud("show", "big", "--json", "--size", "3G", *archive.sources)
    assert (done.returncode, json.loads(done.stdout)["config"]["size"]) == (0, 3 * GIB), done.stderr


def test_nothing_is_planned_that_has_no_room(archive: Archive, tmp_path: Path) -> None:
    done = debian_cloud("plan", "big", "--add", "nano", *archive.sources)
    refused(done, 1, "the disk of big is too small: it has 1G", "hint: give --size 3G")
    assert done.stdout == ""
    refused(debian_cloud("build", "big", "--output", tmp_path / "x", *archive.sources), 1, "need 3G")
    assert list(tmp_path.iterdir()) == []
    done = debian_cloud("plan", "big", "--size", "3G", *archive.sources)
    assert done.returncode == 0, done.stderr
    assert "Not official: size 3G." in done.stdout
    assert f"truncate -s {3 * GIB} " in done.stdout


def test_lint_says_so_of_an_archive_s_configuration(archive: Archive) -> None:
    done = debian_cloud("lint", "big", *archive.sources)
    assert done.returncode == 1
    assert "error: fits-on-its-disk: debian-cloud-config-big: the disk of big is too small: it has 1G" in done.stdout


def test_what_has_no_disk_has_no_size(archive: Archive) -> None:
    refused(debian_cloud("plan", "tree", "--size", "3G", *archive.sources), 2, "without a disk", "omit --size")


def test_a_copy_with_more_packages_is_told_of(archive: Archive, tmp_path: Path) -> None:
    done = debian_cloud(
        *("new", "mine", "--from", "big", "--maintainer", "Me <me@example.org>", "--output", tmp_path),
        *archive.sources,
    )
    assert done.returncode == 0, done.stderr
    assert "warning: the disk of big is too small" in done.stderr
    assert "set Image-Size in its debian/control" in done.stderr
