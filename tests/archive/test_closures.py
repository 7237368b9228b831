# SPDX-License-Identifier: GPL-3.0-or-later
"""An archive that keeps the closures of its images: which images it accepts, and when it shows them."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from debian_cloud.archive import lifecycle, state
from debian_cloud.image import index
from debian_cloud.image.id import ImageId
from tests.archive.conftest import stubbed

if TYPE_CHECKING:
    from tests.archive.conftest import Archive, Key, Maker, Upload

SERIAL, LATER = "20261120.0", "20261121.0"
CONFIG = "debian-cloud-config-ec2"
FOUND = "1 packages, 1 bytes; 1 bytes added to the pool"


@dataclass(frozen=True, slots=True)
class Keeping:
    """An archive that keeps closures, in which the step `closure` gives a test's answers, without a network."""

    archive: Archive
    answers: Path
    make: Maker
    uploader: Key

    def answer(self, image: str, words: str) -> None:
        """Make the closure of an image fail with this message; if that is empty, the closure is made."""
        (self.answers / image.replace("/", "_")).write_text(words)

    @property
    def asked(self) -> list[str]:
        """The images whose closures were requested since the last call."""
        log = self.answers / "asked"
        found = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return found

    @property
    def shown(self) -> dict[str, str]:
        """Serial -> status of the images that Images lists."""
        return {r.id.serial: r.status for r in index.parse((self.archive.dist / "main/images/Images").read_text())}

    @property
    def waiting(self) -> list[dict[str, Any]]:
        (suite,) = json.loads(self.archive.run("status", "--json").stdout)["suites"]
        found: list[dict[str, Any]] = suite["waiting"]["closures"]
        return found

    def image(self, serial: str = SERIAL, *, change: tuple[str, str] = ("", "")) -> Upload:
        """Make an image from this archive; `change` replaces a text of its .buildinfo."""
        upload = self.make.image(None, serial)
        fingerprint = self.archive.key.gpg("--with-colons", "--list-keys").partition("\nfpr:")[2].split(":")[8]
        (deb,) = self.archive.public.glob(f"pool/main/d/debian-cloud/{CONFIG}_0.1.0_all.deb")
        content = deb.read_bytes()
        line = f" {hashlib.sha256(content).hexdigest()} {len(content)} {CONFIG} 0.1.0 all\n"
        text = upload.files[1].read_text().replace("D" * 40, fingerprint) + line
        assert change[0] in text
        upload.files[1].write_text(text.replace(*change))
        header = {"Binary": CONFIG, "Architecture": "amd64", "Version": serial}
        return self.make.changes(upload.files, self.uploader, upload.changes.name, header)


@pytest.fixture
def keeping(archive: Archive, make: Maker, uploader: Key, tmp_path: Path) -> Keeping:
    shims, answers = tmp_path / "shims", tmp_path / "answers"
    shims.mkdir()
    answers.mkdir()
    answering = f"""
if [ "$1" = listed ]; then
    [ ! -e {answers}/listed ] || {{ cat {answers}/listed >&2; exit 1; }}
    exit 0
fi
[ "$1" = closure ] || exec /usr/bin/python3 -P -m debian_cloud.archive.steps "$@"
image=${{3#*/closures/}}
echo "$image" >>{answers}/asked
words={answers}/$(printf %s "$image" | tr / _)
if [ -s "$words" ]; then cat "$words" >&2; exit 1; fi
mkdir -p "$3"
echo '{FOUND}'
"""
    env = stubbed(shims, {**archive.env, "PATH": f"{shims}:{archive.env['PATH']}"}, answering)
    (archive.path / "conf/closures").touch()
    keeping = Keeping(replace(archive, env=env), answers, make, uploader)
    keeping.archive.take(make.deb(uploader, "0.1.0", package=CONFIG))
    keeping.archive.run("publish")
    return keeping


def test_what_cannot_be_kept_is_refused_at_the_door(keeping: Keeping) -> None:
    foreign = f" {'7' * 64} 2816 debian-cloud-archive-keyring 13+2026.11.28 all\n"
    for change, said in (
        # It was made from another archive, and has that archive's keyring package.
        (("Packages-Sha256:\n", f"Packages-Sha256:\n{foreign}"), "which this archive does not list: it has 13+20"),
        ((f" {CONFIG} 0.1.0 all", f" {CONFIG} 0.2.0 all"), f"does not list the package {CONFIG} 0.1.0"),
        (
            (" trixie http://debian.example/debian ", " trixie http://x/snap/20200101T000000Z "),
            "made from the snapshot",
        ),
    ):
        assert said in keeping.archive.refuse(keeping.image(change=change))
    # Debian has another package.
    (keeping.answers / "listed").write_text("debian-cloud: error: no signed source has x 1\ndebian-cloud: hint: y\n")
    assert "no signed source has x 1" in keeping.archive.refuse(keeping.image())
    (keeping.answers / "listed").unlink()
    # None of its release files is signed by a key of this archive.
    assert "no release file of this archive" in keeping.archive.refuse(keeping.make.image(keeping.uploader))
    # The archive has a newer version by now, though no index lists it yet.
    old = keeping.image()
    keeping.archive.take(keeping.make.deb(keeping.uploader, "0.2.0", package=CONFIG))
    assert "0.1.0, which this archive does not list: it has 0.2.0" in keeping.archive.refuse(old)
    # But it was made from a published snapshot.
    identifier = keeping.archive.run("snapshot").stdout.strip()
    uri = "http://debian.example/debian"
    keeping.archive.take(keeping.image(change=(f" trixie {uri} ", f" trixie {uri}/snap/{identifier} ")))


@pytest.mark.thorough
def test_debian_is_asked_at_the_door(keeping: Keeping, env: dict[str, str]) -> None:
    """An image whose package no index of Debian lists is refused; if none can be read, it is taken but not shown."""
    archive = replace(keeping.archive, env=env)
    mirror, policy = "--mirror=http://127.0.0.1:1/debian\n", archive.path / "conf/closures"
    policy.write_text("--allow-expired\n")
    reason = archive.refuse(keeping.image())
    assert f"no signed source has base-files 13.8 with the SHA-256 {'f' * 64}" in reason
    policy.write_text(f"# nobody is there\n{mirror}--security-{mirror[2:]}")
    archive.take(keeping.image())
    done = archive.run("publish")
    assert (done.returncode, keeping.shown) == (0, {})
    assert "warning: the closure of images/trixie/ec2/amd64/20261120.0 is not kept" in done.stderr
    # `status` gives apt's own reason.
    (found,) = keeping.waiting
    assert "127.0.0.1" in found["reason"]


def test_an_image_is_shown_when_what_it_was_made_of_is_kept(keeping: Keeping) -> None:
    archive = keeping.archive
    archive.take(keeping.image())
    # An image is shown after its closure is kept, without an address of the archive.
    (archive.path / "conf/url").unlink()
    done = archive.run("publish")
    assert keeping.asked == [f"trixie/ec2/amd64/{SERIAL}"]
    assert f"kept: trixie/ec2/amd64/{SERIAL}: {FOUND}\n" in done.stdout
    assert keeping.shown == {SERIAL: "current"}
    assert keeping.waiting == []
    assert [*(archive.path / "tmp").iterdir()] == []
    archive.run("publish")
    assert keeping.asked == []


@pytest.mark.thorough
def test_an_image_that_cannot_be_kept_stops_nothing_else(keeping: Keeping) -> None:
    archive = keeping.archive
    archive.take(keeping.image())
    archive.run("publish")
    image = f"trixie/ec2/amd64/{LATER}"
    archive.take(keeping.image(LATER))
    archive.take(keeping.make.deb(keeping.uploader, "3.0"))
    keeping.answer(
        image, "debian-cloud: error: no signed source has x 1.0 \x1b[2J\ndebian-cloud: hint: build it again\n"
    )
    keeping.asked.clear()
    done = archive.run("publish")
    # The index is published without that image.
    assert "Version: 3.0" in (archive.dist / "main/binary-amd64/Packages").read_text()
    assert keeping.shown == {SERIAL: "current"}
    assert (archive.public / "images/trixie/ec2/amd64/current").readlink().name == SERIAL
    warning, error, hint, again = done.stderr.splitlines()
    assert warning == f"warning: the closure of images/{image} is not kept"
    assert (error, hint) == ("error: no signed source has x 1.0 [2J", "hint: build it again")
    assert "it is tried again" in again
    # `status` reports which image is not shown, why, and when it is tried again.
    (found,) = keeping.waiting
    assert found["image"] == f"images/{image}"
    assert (found["tries"], found["shown"]) == (1, False)
    assert found["reason"] == r"no signed source has x 1.0 \x1b[2J"
    assert 3000 < found["next"] - time.time() <= 3600
    told = archive.run("status").stdout
    assert f"not published, because it has no closure: images/{image}\n" in told
    assert "tried 1 times, next try after 20" in told

    # The unit waits longer before each try, and publishes nothing meanwhile.
    before = archive.snapshot()
    for tries in range(2, 8):
        for _ in range(2):
            keeping.asked.clear()
            assert archive.run("publish", "--if-new").stdout == ""
            assert keeping.asked == []
        noted = state.failure(archive.path, ImageId.parse(image))
        assert noted is not None
        state.note_failure(archive.path, ImageId.parse(image), replace(noted, next=int(time.time())))
        assert archive.run("publish", "--if-new").stdout == ""
        assert keeping.asked == [image]
        (found,) = keeping.waiting
        assert found["tries"] == tries
    assert 80000 < found["next"] - time.time() <= 86400
    assert archive.snapshot() == before
    # A publication by hand tries at once.
    archive.run("publish")
    assert keeping.asked == [image]
    # Once the closure can be kept, the image is shown, also by the unit.
    keeping.answer(image, "")
    state.note_failure(archive.path, ImageId.parse(image), lifecycle.Failure(9, 0, "x"))
    assert f"kept: {image}: " in archive.run("publish", "--if-new").stdout
    assert keeping.shown == {SERIAL: "superseded", LATER: "current"}
    assert archive.run("publish", "--if-new").stdout == ""
    assert state.failures(archive.path) == ()


@pytest.mark.thorough
def test_a_set_waits_for_what_cannot_be_kept(keeping: Keeping) -> None:
    archive = keeping.archive
    (archive.path / "conf/releases").write_text("trixie ec2/amd64 azure/amd64\n")
    keeping.answer(f"trixie/ec2/amd64/{SERIAL}", "debian-cloud: error: no\n")
    archive.take(keeping.image())
    archive.run("publish")
    assert keeping.shown == {}
    keeping.answer(f"trixie/ec2/amd64/{SERIAL}", "")
    assert f"held back: trixie/{SERIAL}: ec2/amd64 (missing: azure/amd64)" in archive.run("publish").stdout
    assert keeping.shown == {}


@pytest.mark.thorough
def test_what_is_shown_is_not_taken_back(keeping: Keeping) -> None:
    """A published image stays although the archive begins to keep closures, or lost one."""
    archive = keeping.archive
    policy = archive.path / "conf/closures"
    policy.rename(archive.path / "conf/none")
    archive.take(keeping.image())
    archive.run("publish")
    assert (keeping.shown, keeping.asked) == ({SERIAL: "current"}, [])
    (archive.path / "conf/none").rename(policy)
    keeping.answer(f"trixie/ec2/amd64/{SERIAL}", "debian-cloud: error: no\n")
    archive.run("publish")
    assert keeping.shown == {SERIAL: "current"}
    (found,) = keeping.waiting
    assert (found["shown"], found["reason"]) == (True, "no")
    assert "published without a closure: images/" in archive.run("status").stdout
    # The closure of a withdrawn image is not needed.
    keeping.asked.clear()
    archive.run("withdraw", f"trixie/ec2/amd64/{SERIAL}", "--reason", "x")
    archive.run("publish")
    assert (keeping.asked, keeping.waiting) == ([], [])
    assert state.failures(archive.path) == ()


@pytest.mark.thorough
def test_a_closure_without_an_end_ends(keeping: Keeping, tmp_path: Path) -> None:
    """All closures together get an hour; in this test, a fast clock gives them a second."""
    archive = keeping.archive
    program = tmp_path / "shims/python3"
    program.write_text(program.read_text().replace("if [ -s", "sleep 20\nif [ -s"))
    shutil.copy(program, tmp_path / "shims/timeout")
    (tmp_path / "shims/timeout").write_text('#!/bin/sh\nshift 3\nexec /usr/bin/timeout --foreground 1 "$@"\n')
    archive.take(keeping.image())
    archive.take(keeping.make.deb(keeping.uploader, "3.0"))
    done = archive.run("publish")
    assert "it was not complete within one hour" in done.stderr
    assert "Version: 3.0" in (archive.dist / "main/binary-amd64/Packages").read_text()
    assert keeping.shown == {}


@pytest.mark.thorough
def test_the_queue_publishes_what_is_new_and_nothing_again(keeping: Keeping, tmp_path: Path) -> None:
    """The test runs the queue as its unit does, and ends it when it would sleep."""
    archive = keeping.archive
    # Parts of a second are those in which a gpg-agent ends.
    short = 'case $1 in 0.*) exec /usr/bin/sleep "$1" ;; esac'
    (tmp_path / "shims/sleep").write_text(f'#!/bin/sh\n{short}\necho "$1" >>{tmp_path}/slept\nkill "$PPID"\n')
    (tmp_path / "shims/sleep").chmod(0o755)
    step = Path(__file__).resolve().parents[2] / "archive/steps/queue"

    def queue(path: Path = archive.path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [step, path],
            env=archive.env,
            text=True,
            capture_output=True,
            check=False,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )

    serial = re.compile("published: serial [0-9]+\n")
    # No upload waits, and nothing is published.
    done = queue()
    assert done.returncode == 0
    assert re.fullmatch("nothing to accept: .*\n", done.stdout)
    archive.put(keeping.make.deb(keeping.uploader, "3.0"))
    done = queue()
    assert done.returncode == 0
    assert len(serial.findall(done.stdout)) == 1
    # A refused upload gives nothing to publish.
    archive.put(keeping.make.deb(None, "3.1"))
    done = queue()
    assert ("refused: " in done.stdout, serial.findall(done.stdout)) == (True, [])
    assert not (tmp_path / "slept").exists()
    # While another verb works, the queue waits by itself; if it ended, the path unit would start it again at once.
    archive.put(keeping.make.deb(keeping.uploader, "3.2"))
    with subprocess.Popen(["flock", archive.path / "lock", "cat"], stdin=subprocess.PIPE) as other:
        while subprocess.run(["flock", "--nonblock", archive.path / "lock", "true"], check=False).returncode == 0:
            time.sleep(0.01)
        done = queue()
        assert other.stdin
        other.stdin.close()
    assert (tmp_path / "slept").read_text() == "60\n"
    assert "is tried again in 1 minutes" in done.stderr
    assert "accepted: " in queue().stdout
    # A directory that is not an archive is not tried again.
    assert queue(tmp_path).returncode == 2


def test_the_queue_waits_longer_each_time(keeping: Keeping, tmp_path: Path) -> None:
    archive = keeping.archive
    (tmp_path / "shims/sleep").write_text(f"""#!/bin/sh
echo "$1" >>{tmp_path}/slept
[ "$(wc -l <{tmp_path}/slept)" -lt 150 ] || kill "$PPID"
""")
    (tmp_path / "shims/sleep").chmod(0o755)
    # Only the step, with verbs that always fail.
    steps = tmp_path / "steps"
    steps.mkdir()
    shutil.copy(Path(__file__).resolve().parents[2] / "archive/steps/queue", steps)
    (steps / "as-owner").write_text(f'#!/bin/sh\necho "$2" >>{tmp_path}/tried\nexit 1\n')
    (steps / "as-owner").chmod(0o755)
    done = subprocess.run(
        [steps / "queue", archive.path], env=archive.env, text=True, capture_output=True, check=False, timeout=60
    )
    minutes = [int(number) for number in re.findall("in ([0-9]+) minutes", done.stderr)]
    assert minutes == [1, 2, 4, 8, 16, 32, 60, 60]
    assert (tmp_path / "tried").read_text() == "accept\npublish\n" * 8
