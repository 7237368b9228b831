# SPDX-License-Identifier: GPL-3.0-or-later
"""If one of several archives is bad, `list --images`, `fetch` and `status` name it, and use the others."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from debian_cloud import __main__
from debian_cloud.host import run
from debian_cloud.image import index, sources, staleness
from debian_cloud.image.id import ImageId
from debian_cloud.packages import evidence, images
from tests import bounds, malformed

GOOD, BAD = "http://good.example", "http://bad.example"
Says = Callable[..., tuple[int, str, str]]
CHOSEN = (
    *("Latin-1 in a value", "an escape", "a carriage return", "Sha512 beside SHA512", "one file with two hashes"),
    *("Size: '0' of 1", "Status: 'yanked' of 6", "many empty lines", "no Filename", "two serials that are current"),
)


def target(kind: str, uri: str, file: Path) -> str:
    """A line of `sources.INDEXTARGETS`."""
    return f"{kind}|debian-cloud|debian-cloud|trixie|{uri}|{file}|yes|/x:1\n"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Says:
    """A function: kind of index, its content in two archives, and a command -> the command's status and output."""
    output = run.output
    monkeypatch.setattr("debian_cloud.packages.machine._RECORD", tmp_path / "cloud-release")
    (tmp_path / "cloud-release").write_text('ID=ec2\nVERSION="20261120.0"\n')

    def says(kind: str, good: bytes | None, bad: bytes, *command: str) -> tuple[int, str, str]:
        lines = ""
        for name, uri, text in (("good", GOOD, good), ("bad", BAD, bad)):
            if text is not None:
                (tmp_path / name).write_bytes(text)
                lines += target(kind, uri, tmp_path / name)
        monkeypatch.setattr(
            run,
            "output",
            lambda argv: lines if argv[: len(sources.INDEXTARGETS)] == sources.INDEXTARGETS else output(argv),
        )
        done = __main__.main([*command])
        said = capsys.readouterr()
        for part in (said.out, said.err):
            assert part.replace("\n", "").isprintable()
            assert all(len(line) < 10000 for line in part.splitlines())
        return done, said.out, said.err

    return says


def warned(err: str) -> None:
    """Assert that one line names the archive and the reason."""
    (line,) = err.splitlines()
    assert re.fullmatch(rf"debian-cloud: warning: the index \S+ of {BAD}, trixie is ignored, .* read: .+", line)


@pytest.mark.parametrize("name", CHOSEN)
def test_one_bad_archive_does_not_silence_the_others(machine: Says, name: str) -> None:
    good, bad = malformed.IMAGES.encode(), malformed.BAD_IMAGES[name]
    done, out, err = machine("Images", good, bad, "list", "--images", "--json")
    assert done == 1
    assert {image["url"].partition("/images/")[0] for image in json.loads(out)} == {GOOD}
    assert len(json.loads(out)) == 4
    warned(err)
    done, out, err = machine("Images", good, bad, "list", "--images")
    assert (done, len(out.splitlines())) == (1, 4)
    warned(err)


@pytest.mark.parametrize("verb", [("list", "--images"), ("fetch", "ec2")])
def test_where_no_index_can_be_read_it_is_an_error(machine: Says, verb: tuple[str, ...], tmp_path: Path) -> None:
    bad = malformed.BAD_IMAGES[CHOSEN[0]]
    for good in (bad, None):
        done, out, err = machine("Images", good, bad, *verb)
        assert (done, out) == (1, "")
        assert re.match(rf"debian-cloud: error: the index Images of {GOOD if good else BAD}, trixie .*UTF-8", err)
        assert err.splitlines()[1].startswith("debian-cloud: hint: run `apt-get update`")


def test_fetch_takes_from_the_others(machine: Says, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def fetch(image: images.Image, out: str) -> None:
        asked.append(image.url)
        Path(out).write_text("x")

    monkeypatch.setattr(images, "fetch", fetch)
    fine, bad = malformed.IMAGES.encode(), malformed.BAD_IMAGES[CHOSEN[0]]
    command = ("fetch", "ec2", "--arch", "amd64", "--output", str(tmp_path / "out"))
    done, _, err = machine("Images", fine, bad, *command)
    assert done == 0
    assert asked == [f"{GOOD}/{index.parse(malformed.IMAGES)[0].filename}"]
    warned(err)
    # The image may be in the archive that cannot be read, so the call is not wrong.
    done, _, err = machine("Images", fine, bad, "fetch", "azure", "--arch", "amd64")
    warned(err.splitlines()[0])
    assert (done, err.splitlines()[1]) == (1, "debian-cloud: error: no image of azure in trixie")
    assert machine("Images", fine, fine, "fetch", "azure", "--arch", "amd64")[0] == 2


@pytest.mark.parametrize("name", ["Latin-1 in a value", "an escape", "one image twice", "Status: 'yanked' of 6"])
def test_status_asks_the_others(machine: Says, name: str) -> None:
    bad = malformed.BAD_STATUS[name]
    done, out, err = machine("Images-Status", malformed.STATUS.encode(), bad, "status")
    assert done == 0
    assert out.startswith("image: debian-cloud-config-ec2 20261120.0 of trixie for amd64, current\n")
    warned(err)
    other = malformed.STATUS.replace("config-ec2", "config-azure").encode()
    done, _, err = machine("Images-Status", other, bad, "status")
    warned(err.splitlines()[0])
    assert (done, "no archive that this machine's apt knows ever published" in err) == (1, True)
    assert machine("Images-Status", other, other, "status")[0] == 1


def test_an_index_that_is_not_there_is_named(machine: Says, tmp_path: Path) -> None:
    done, out, err = machine("Images", malformed.IMAGES.encode(), b"", "list", "--images")
    assert (done, len(out.splitlines()), err) == (0, 4, "")
    machines = [", bios or uefi, 512 MiB of memory, user admin" in line for line in out.splitlines()]
    assert machines == [True] * 4
    output = run.output
    lines = target("Images", GOOD, tmp_path / "good") + target("Images", BAD, tmp_path / "no" / "such")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            run,
            "output",
            lambda argv: lines if argv[: len(sources.INDEXTARGETS)] == sources.INDEXTARGETS else output(argv),
        )
        known = images.known("trixie")
    assert len(known.images) == 4
    assert len(known.refused) == 1


def test_updates_are_kept_of_the_wanted_image_alone(machine: Says, tmp_path: Path) -> None:
    machine("Images-Status", malformed.STATUS.encode(), b"", "status")
    said = images.statuses(lambda found: found.id.serial == "20261119.0")
    assert [found.security for found in said.statuses] == [()] * 3
    assert len(staleness.parse(malformed.STATUS)[0].security) == 1


MEASURE = """
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast
from debian_cloud import __main__
from debian_cloud.host import run
from debian_cloud.image import sources
from debian_cloud.packages import machine
machine._RECORD = Path(sys.argv[2])
output = run.output
run.output = lambda argv: sys.argv[1] if argv[: len(sources.INDEXTARGETS)] == sources.INDEXTARGETS else output(argv)
sys.exit(__main__.main(sys.argv[3:]))
"""


@pytest.mark.parametrize("character", [b"\n", b"\0"], ids=repr)
@pytest.mark.parametrize("kind", ["Images", "Images-Status"])
def test_what_an_index_unpacks_to_is_bounded(tmp_path: Path, kind: str, character: bytes) -> None:
    """Each process has less memory than an index unpacks to; apt may keep an index compressed."""
    path = tmp_path / f"x_{kind}.xz"
    path.write_bytes(bounds.packed(character, 2**28))
    (tmp_path / "good").write_text(malformed.IMAGES if kind == "Images" else malformed.STATUS)
    lines = target(kind, GOOD, tmp_path / "good") + target(kind, BAD, path)
    command = ["list", "--images"] if kind == "Images" else ["status"]
    (tmp_path / "release").write_text('ID=ec2\nVERSION="20261120.0"\n')
    measure: list[str | Path] = [sys.executable, "-c", MEASURE, lines, tmp_path / "release", *command]
    done = bounds.within(200, measure, PYTHONPATH=":".join(sys.path), LC_ALL="C.UTF-8")
    said = done.stderr.decode("utf-8").splitlines()
    warned(said[0])
    if kind == "Images":
        assert (done.returncode, len(done.stdout.splitlines()), len(said)) == (1, 4, 1)


def test_verify_tells_of_the_index_that_it_could_not_ask(machine: Says) -> None:
    """Without the report, an archive that withdrew the image would seem not to know it."""
    bad = malformed.BAD_STATUS["Latin-1 in a value"]
    machine("Images-Status", malformed.STATUS.encode(), bad, "status")
    word = evidence.of_machine(ImageId("trixie", "ec2", "amd64", "20261120.0"))
    assert word
    assert word.said
    assert (word.said.status, BAD in word.problem) == ("current", True)
    word = evidence.of_machine(ImageId("trixie", "ec2", "amd64", "20261121.0"))
    assert word
    assert (word.said, BAD in word.problem) == (None, True)
