# SPDX-License-Identifier: GPL-3.0-or-later
"""A mirror carries the images that were selected, all of their files, and nothing of the others."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest

from debian_cloud.image.id import ImageId
from debian_cloud.image.inventory import Entry
from debian_cloud.mirror import request
from debian_cloud.mirror.selection import EVERYTHING, Selection
from tests.mirror.tree import SUMS, Archive, Mirror, sha

OLD, NEW, OTHER = (
    f"images/trixie/{image}" for image in ("ec2/amd64/20261119.0", "ec2/amd64/20261120.0", "generic/amd64/20261120.0")
)


def images(mirror: Mirror) -> set[str]:
    """The directories of images that a mirror shows."""
    return {path.rpartition("/")[0] for path in mirror.shown() if re.match("images/.*/2", path)}


def add_format(archive: Archive, folder: str, form: str) -> str:
    """Publish the image in one more format, and return the file's path."""
    place = archive.root / folder
    (qcow2,) = place.glob("*.?.qcow2")
    path = qcow2.with_suffix(f".{form}")
    path.write_bytes(qcow2.read_bytes()[::-1])
    (place / f"debian-13-ec2-amd64.{form}").symlink_to(path.name)
    for name in SUMS:
        (place / name).unlink()
    archive.sign_sums(place)
    config, serial = folder.split("/")[2::2]
    first = archive.images[f"{config} {serial}"]
    second = re.sub("^Format: .*$", f"Format: {form}", first, flags=re.MULTILINE).replace(".qcow2\n", f".{form}\n")
    for name in ("SHA256", "SHA512"):
        second = re.sub(f"^{name}: .*$", f"{name}: {sha(path, name.lower())}", second, flags=re.MULTILINE)
    archive.images[f"{config} {serial}"] = f"{first}Status: current\n\n{second}"
    archive.publish()
    return str(path.relative_to(archive.root))


@pytest.mark.parametrize(
    ("options", "carried"),
    [
        ((), {OLD, NEW, OTHER}),
        (("--config", "ec2"), {OLD, NEW}),
        (("--config", "generic", "--config", "ec2"), {OLD, NEW, OTHER}),
        (("--newest", "1"), {NEW, OTHER}),
        (("--newest", "2"), {OLD, NEW, OTHER}),
        (("--config=ec2", "--newest=1", "--architecture=amd64", "--format=qcow2"), {NEW}),
    ],
)
def test_all_files_of_the_selected_images_are_carried(
    archive: Archive, mirror: Mirror, options: tuple[str, ...], carried: set[str]
) -> None:
    mirror.ok(*options)
    assert images(mirror) == carried
    for folder in carried:
        there = {path.name for path in (archive.root / folder).iterdir()}
        assert {path.name for path in (mirror.dest / folder).iterdir()} == there
    # A link leads nowhere else.
    links = {path for path, target in mirror.shown().items() if target.startswith("-> ")}
    stable = {path for path in links if path.endswith("-amd64.qcow2")}
    assert links - stable == {f"{folder.rpartition('/')[0]}/current" for folder in carried}
    assert {path.rpartition("/")[0] for path in stable} == carried
    # What is signed is shown as it is: packages, and the index of all images.
    for path in ("dists/trixie/InRelease", "dists/trixie/main/images/Images"):
        assert (mirror.dest / path).read_bytes() == (archive.root / path).read_bytes()
    assert len([*mirror.dest.glob("pool/**/*.deb")]) == 2


@pytest.mark.parametrize("selected", ["qcow2", "raw"])
def test_one_format_is_carried_with_all_that_proves_it(archive: Archive, mirror: Mirror, selected: str) -> None:
    raw = add_format(archive, NEW, "raw")
    mirror.ok("--format", selected, "--newest=1", "--config=ec2")
    there = {path.name for path in (archive.root / NEW).iterdir()}
    left_out = raw.replace(".raw", ".qcow2") if selected == "raw" else raw
    name = left_out.rpartition("/")[2]
    assert {path.name for path in (mirror.dest / NEW).iterdir()} == there - {name, name.replace("-20261120.0", "")}
    assert images(mirror) == {NEW}
    # The next run knows it, too.
    assert "shows trixie" in mirror.ok("--format", selected, "--newest=1", "--config=ec2", "--verify-all")
    assert not (mirror.dest / left_out).exists()


def test_another_selection_takes_effect_although_nothing_was_published(archive: Archive, mirror: Mirror) -> None:
    mirror.ok("--newest=1")
    assert "still shows" in mirror.ok("--newest=1")
    assert "fetching" in mirror.ok()
    assert images(mirror) == {OLD, NEW, OTHER}
    # What is not selected any more is removed like what is not listed any more: clients may be reading it.
    mirror.ok("--config=generic")
    assert images(mirror) == {OLD, NEW, OTHER}
    left = (mirror.dest / ".mirror/left").read_text()
    assert {path.rpartition("/")[0] for path in re.findall("(images/.*/2.*)", left)} == {OLD, NEW}
    assert not (mirror.dest / "images/trixie/ec2/amd64/current").is_symlink()


def test_a_newer_image_takes_the_place_of_an_older_one(archive: Archive, mirror: Mirror) -> None:
    mirror.ok("--newest=1", "--config=ec2")
    archive.add_image("ec2", "20261121.0")
    archive.publish()
    mirror.ok("--newest=1", "--config=ec2")
    assert f"{NEW}/" in (mirror.dest / ".mirror/left").read_text()
    assert (mirror.dest / "images/trixie/ec2/amd64/current").readlink().name == "20261121.0"


def test_a_word_that_selects_nothing_is_told(mirror: Mirror) -> None:
    done = mirror.run("--config=ec3", "--config=ec2", "--format=qcow2")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "debian-cloud-mirror: warning: --config ec3: the archive has no such image in trixie\n"
    assert images(mirror) == {OLD, NEW}


@pytest.mark.parametrize(
    "options", [("--config", "../x"), ("--format", "a b"), ("--newest", "0"), ("--architecture", "\x1b[2J")]
)
def test_a_selection_that_none_can_be(mirror: Mirror, options: tuple[str, ...]) -> None:
    done = mirror.run(*options)
    assert done.returncode == 2
    assert done.stderr.startswith("debian-cloud-mirror: error: ")
    assert "\x1b" not in done.stderr
    assert not mirror.dest.exists()


def test_a_dry_run_says_what_is_needed_and_shows_nothing(mirror: Mirror) -> None:
    said = mirror.ok("--dry-run", "--newest=1")
    (files, of, wanted, size) = re.findall(
        r"the mirror would have (\d+) files, of (\d+) images; (\d+) files, (\d+) bytes, would be fetched", said
    )[0]
    assert of == "2"
    assert 0 < int(wanted) <= int(files)
    assert int(size) > 100_000
    assert mirror.shown() == {}
    mirror.ok("--newest=1")
    before = mirror.shown()
    said = mirror.ok("--dry-run")
    assert "of 3 images; " in said
    assert mirror.shown() == before
    assert "shows trixie" in mirror.ok("--dry-run", "--newest=1")


def entries(*names: str) -> Iterable[Entry]:
    """The disks of images that are named CONFIG/ARCH/SERIAL FORMAT, and another file of each."""
    for name in names:
        text, _, form = name.partition(" ")
        image = ImageId.parse(f"trixie/{text}")
        yield Entry(f"{image.path()}/{image.file(form)}", "0" * 64, 1)
        yield Entry(f"{image.path()}/{image.file('changes')}", "0" * 64, 1)


def test_serials_are_counted_as_numbers_and_for_each_architecture() -> None:
    known = [
        *entries("a/amd64/20261120.9 raw", "a/amd64/20261120.10 raw", "a/amd64/20261120.10 qcow2"),
        *entries("a/arm64/20261119.0 raw", "b/amd64/20261121.0 qcow2"),
    ]

    def chosen(selection: Selection) -> list[int]:
        taken, _ = selection.chosen(known)
        return [number for number, entry in enumerate(known[::2]) if entry in taken]

    assert chosen(EVERYTHING) == [0, 1, 2, 3, 4]
    assert chosen(Selection(newest=1)) == [1, 2, 3, 4]
    assert chosen(Selection(newest=1, formats=("raw",))) == [1, 3]
    assert chosen(Selection(configs=("a",), architectures=("arm64",))) == [3]
    # The newest that has the format counts, not the newest of all.
    assert chosen(Selection(newest=1, formats=("qcow2",))) == [2, 4]


def test_what_is_of_no_image_is_carried_and_a_format_that_is_not_known_yet() -> None:
    header = Entry("images/trixie/HEADER.html", "0" * 64, 1)
    known = [header, *entries("a/amd64/20261120.0 vhdx", "a/amd64/20261121.0 raw")]
    taken, offered = Selection(formats=("vhdx",)).chosen(known)
    assert [entry.path.rpartition(".")[2] for entry in taken] == ["html", "vhdx", "changes"]
    assert ("--format", "vhdx") in offered
    assert Selection(configs=("b",)).chosen(known)[0] == (header,)


def test_equal_selections_have_equal_texts() -> None:
    one = Selection(request.words("--config", ["b", "a", "b"]), newest=2)
    assert str(one) == str(Selection(("a", "b"), newest=2)) == "--config=a --config=b --newest=2"
    assert str(EVERYTHING) == ""
