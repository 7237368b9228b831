# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input that a builder refuses, on a real archive and with real apt: one sentence, a hint, nothing left."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from debian_cloud.build import workspace
from debian_cloud.cli import build
from debian_cloud.errors import Error
from debian_cloud.host import folders, memory
from tests.command import debian_cloud, refused
from tests.conftest import traces
from tests.pristine import archive, pristine
from tests.throwaway import Archive

__all__ = ["archive", "pristine"]


def test_the_archive_is_fine_as_long_as_nobody_tampers(archive: Archive) -> None:
    done = debian_cloud("show", "fine", *archive.sources)
    assert done.returncode == 0, done.stderr
    assert "debian-cloud-config-fine 1.0" in done.stdout


def test_unknown_configuration(archive: Archive, tmp_path: Path) -> None:
    done = debian_cloud("build", "fime", *archive.sources, "--output", tmp_path)
    refused(done, 2, "no image configuration fime in trixie", "did you mean fine?")


def test_what_all_images_share_is_no_image(archive: Archive, tmp_path: Path) -> None:
    done = debian_cloud("build", "common", *archive.sources, "--output", tmp_path)
    refused(done, 2, "no image configuration common")


@pytest.mark.parametrize("name", ["../x", "a b", "/etc", "--", "UPPER"])
def test_a_name_that_is_no_package_name(archive: Archive, tmp_path: Path, name: str) -> None:
    done = debian_cloud("plan", *archive.sources, "--", name)
    refused(done, 2, "is not a valid name", "hint:")


def test_unknown_field(archive: Archive, tmp_path: Path) -> None:
    done = debian_cloud("build", "field", *archive.sources, "--output", tmp_path)
    refused(done, 1, "unknown field Image-Sise", "did you mean Image-Size?")


def test_invalid_size(archive: Archive, tmp_path: Path) -> None:
    done = debian_cloud("build", "size", *archive.sources, "--output", tmp_path)
    refused(done, 1, "more than one word in Image-Size: 8 gigs", "M, G or T")


def test_a_configuration_that_cannot_be_installed_shows_apt_s_own_reason(archive: Archive, tmp_path: Path) -> None:
    done = debian_cloud("build", "needy", *archive.sources, "--output", tmp_path)
    refused(done, 1, "configuration needy 1.0 cannot be installed", "Depends: base-files (>= 999)")


def test_wrong_key(archive: Archive, tmp_path: Path) -> None:
    done = debian_cloud(
        *("build", "fine", "--archive", f"file:{archive.public}"),
        *("--keyring", "/usr/share/keyrings/debian-archive-keyring.gpg", "--output", tmp_path),
    )
    # The message of gpgv, or that of sqv, from Debian 13 on. apt's other output depends on what it has verified.
    refused(done, 1, "apt-get failed")
    assert re.search("NO_PUBKEY|Missing key", done.stderr)
    assert list(tmp_path.iterdir()) == []


def test_an_archive_needs_a_keyring(archive: Archive) -> None:
    refused(debian_cloud("list", "--archive", f"file:{archive.public}"), 2, "--archive needs --keyring")
    done = debian_cloud("list", "--archive", f"file:{archive.public}", "--keyring", "/nowhere.gpg")
    refused(done, 2, "keyring /nowhere.gpg cannot be read: No such file")


def test_expired_release(archive: Archive) -> None:
    text = re.sub("^Valid-Until: .*", "Valid-Until: Sat, 01 Jan 2022 00:00:00 UTC", archive.signed_text(), flags=re.M)
    archive.sign(re.sub("^Date: .*", "Date: Fri, 31 Dec 2021 00:00:00 UTC", text, flags=re.M))
    refused(debian_cloud("list", *archive.sources), 1, "expired")


def test_a_release_of_another_suite(archive: Archive) -> None:
    text = archive.signed_text()
    archive.sign(text.replace("Suite: trixie", "Suite: sid").replace("Codename: trixie", "Codename: sid"))
    # At another address, because apt itself refuses another name at the same address.
    other = archive.folder / "another"
    shutil.copytree(archive.public, other, symlinks=True)
    done = debian_cloud("show", "fine", "--archive", f"file:{other}", "--keyring", archive.keyring)
    refused(done, 1, "serves the suite sid instead of trixie")


def test_a_changed_release(archive: Archive) -> None:
    archive.release.write_text(archive.release.read_text().replace("Origin: ", "Origin: x"))
    done = debian_cloud("list", *archive.sources)
    refused(done, 1, "apt-get failed")
    assert re.search("BADSIG|Message has been manipulated", done.stderr)


def test_an_unsigned_release(archive: Archive) -> None:
    archive.release.write_text(archive.signed_text())
    archive.release.with_name("Release.gpg").unlink()
    refused(debian_cloud("list", *archive.sources), 1, "apt-get failed", "NOSPLIT")


def test_tampered_packages(archive: Archive) -> None:
    # At another address, because apt does not fetch again what it has verified before.
    other = archive.folder / "other"
    shutil.copytree(archive.public, other, symlinks=True)
    for path in (*other.rglob("Packages*"), *other.glob("dists/trixie/main/binary-amd64/by-hash/SHA256/*")):
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    done = debian_cloud("show", "fine", "--archive", f"file:{other}", "--keyring", archive.keyring)
    refused(done, 1, "Hash Sum mismatch")


def test_a_tampered_deb_enters_no_image(archive: Archive, tmp_path: Path) -> None:
    (deb,) = archive.public.glob("pool/main/d/*/debian-cloud-config-fine_*.deb")
    content = bytearray(deb.read_bytes())
    content[-100] ^= 1
    deb.write_bytes(content)
    done = debian_cloud("build", "fine", *archive.sources, "--output", tmp_path)
    refused(done, 1, "E: Failed to fetch")
    # For a file that it copies, the apt of Debian 13 reports no reason.
    assert re.search(rf"/{deb.name} +(Hash Sum mismatch|Undetermined Error)$", done.stderr, re.M)
    assert list(tmp_path.iterdir()) == []


def test_a_build_that_fails_leaves_nothing(archive: Archive, tmp_path: Path) -> None:
    """The build fails after the installation, when GRUB is missing; into a pipe, each step is a plain line."""
    before = loop_devices()
    done = debian_cloud("build", "fine", *archive.sources, "--output", tmp_path, TERM="xterm-256color")
    refused(done, 1, "configure grub: ", "unicode.pf2")
    assert list(tmp_path.iterdir()) == []
    assert traces(tmp_path) == []
    assert loop_devices() == before
    lines = done.stderr.partition("debian-cloud: error: ")[0].splitlines()
    total = lines[0].partition("]")[0].partition("/")[2]
    assert [line[: len(f"[ 1/{total}] ")] for line in lines] == [
        f"[{n:>2}/{total}] " for n in range(1, len(lines) + 1)
    ]
    assert re.search(rf"^\[ ?\d+/{total}\] get \d+ packages$", done.stderr, re.M)
    assert not set("\r\x1b") & set(done.stderr)


def loop_devices() -> str:
    return subprocess.run(["losetup", "--list"], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["build", "fine", "--format", "vhdx"], "unknown disk format vhdx"),
        (["build", "fine", "--format", "qcow3"], "did you mean qcow2?"),
        (["build", "fine", "--serial", "1"], "is not an image serial"),
        (["build", "fine", "--arch", "amd65"], "did you mean amd64?"),
        (["build", "fine", "--suite", "../x"], "is not a valid name"),
        (["build", "fine", "--mirror", "gopher://x"], "is not a URL that apt accepts"),
        (["bild", "fine"], "did you mean build?"),
        ([], "no verb given"),
    ],
)
def test_wrong_use(arguments: list[str], said: str) -> None:
    refused(debian_cloud(*arguments), 2, said, "hint:")


def test_an_answer_that_cannot_be_written() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            ["debian-cloud", "--help"],
            env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    refused(done, 1, "the disk is full", "hint: free some space")
    assert "Exception" not in done.stderr


COPY = """
import errno, sys
from debian_cloud import __main__, cli
def copy(_):
    raise OSError(errno.ENOSPC, "", "/read", None, "/written")
cli.run = copy
sys.exit(__main__.main([]))
"""


def test_of_a_copy_that_fills_the_disk_the_new_file_is_named() -> None:
    done = subprocess.run([sys.executable, "-c", COPY], capture_output=True, text=True, check=False)
    refused(done, 1, "the disk is full: /written cannot be written\n")


def test_a_reader_that_goes_away() -> None:
    done = subprocess.run(
        ["sh", "-c", "{ env -u PYTHONUNBUFFERED debian-cloud --help; echo status $? >&2; } | true"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stderr in ("status 0\n", "status 1\n")


@pytest.mark.parametrize("arguments", ["diff {} {}", "verify x --closure {}", "scrub {}"])
def test_a_name_that_no_file_system_takes(arguments: str) -> None:
    done = debian_cloud(*arguments.format("x" * 256, "x" * 256).split())
    refused(done, 1, "File name too long", "hint:")


def test_a_disk_that_fails_while_it_is_read() -> None:
    # This file gives EIO, like a bad disk.
    refused(debian_cloud("sbom", "/proc/self/mem"), 1, "Input/output error", "check that the file is the right one")


@pytest.mark.parametrize(
    "option",
    [
        "verify x --closure . --buildinfo x --keyring",
        "list --archive /x --keyring",
        "build x --seed",
        "plan x --seed",
    ],
)
@pytest.mark.parametrize("kind", ["fifo", "/dev/zero"])
def test_what_never_ends_is_not_waited_for(tmp_path: Path, option: str, kind: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    refused(debian_cloud(*option.split(), tmp_path / kind), 1, "is not a regular file", "hint:")


@pytest.mark.parametrize("arguments", ["--version", "sbom", "fetch ec2", "frob"])
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_stream_that_is_closed_leads_nowhere(tmp_path: Path, arguments: str, closed: str) -> None:
    script = f'debian-cloud {arguments} {closed}; echo "$?" >status'
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert "Traceback" not in done.stderr
    wanted = {"--version": ("0",), "fetch ec2": ("1", "2")}.get(arguments, ("2",))
    assert (tmp_path / "status").read_text().strip() in wanted


def test_output_that_exists_is_not_touched(archive: Archive, tmp_path: Path) -> None:
    there = tmp_path / "debian-13-fine-amd64-20260101.0.buildinfo"
    there.write_text("mine")
    done = debian_cloud("build", "fine", "--serial", "20260101.0", *archive.sources, "--output", tmp_path)
    refused(done, 2, f"{there} exists already")
    assert [path.name for path in tmp_path.iterdir()] == [there.name]
    assert there.read_text() == "mine"


def test_a_missing_tool_names_its_package(archive: Archive, tmp_path: Path) -> None:
    # apt's own user must be able to read it, because it needs gpgv.
    tools = archive.folder / "bin"
    tools.mkdir()
    for folder in ("/usr/bin", "/usr/sbin"):
        for path in Path(folder).iterdir():
            if path.name not in ("diff", "python3") and not (tools / path.name).exists():
                (tools / path.name).symlink_to(path)
    (tmp_path / "out").mkdir()
    done = debian_cloud("build", "fine", *archive.sources, "--output", tmp_path / "out", PATH=f"{_venv()}:{tools}")
    refused(done, 2, "the tool diff is missing", "apt-get install diffutils")
    assert list((tmp_path / "out").iterdir()) == []


def _venv() -> str:
    return os.environ["PATH"].partition(":")[0]


def test_an_output_that_can_be_no_folder(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for output in (Path("/dev/null/x"), tmp_path / "file"):
        done = debian_cloud("build", "fine", *archive.sources, "--output", output)
        refused(done, 2, f"{output} cannot be written to", "--output")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 80 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount the small file system that this needs")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_too_small_is_told_before_the_build(archive: Archive, small: Path) -> None:
    done = debian_cloud("build", "fine", *archive.sources, "--output", small)
    refused(done, 1, "the disk is full", "--output")
    assert list(small.iterdir()) == []


def test_a_disk_that_fills_up_during_the_build(
    archive: Archive, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace, "_refuse_full", lambda *_: None)
    parser = argparse.ArgumentParser()
    build.arguments(parser)
    monkeypatch.setenv(memory.NEVER, "1")
    args = parser.parse_args(["fine", *archive.sources, "--output", str(small), "--quiet", "--cache-size", "0"])
    with pytest.raises(Error, match="the disk is full"):
        build.main(args)
    assert list(small.iterdir()) == []


AGAIN = ("--serial", "20260101.0", "--cache-size", "0")
"""The same image each time, all of it installed."""


def within(seconds: int, is_so: Callable[[], bool]) -> None:
    """Wait until a condition holds, at most `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not is_so():
        time.sleep(0.1)


@dataclass(slots=True)
class Building:
    """A build in the background, in the middle of its installation."""

    process: subprocess.Popen[str]
    output: Path

    def workspaces(self) -> list[str]:
        return [path.name for path in self.output.iterdir()]

    def signal_children(self, number: signal.Signals) -> bool:
        """Signal the processes that the build runs in its workspace; report whether there was one."""
        found = False
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                # The links of a process in a chroot of another namespace show the path from outside.
                if re.search(f"{re.escape(str(self.output))}/[^/]*$", str((folder / "cwd").readlink())):
                    os.kill(int(folder.name), number)
                    # One that had ended just before has no working directory any more.
                    found = bool((folder / "cwd").readlink()) or found
        return found


@pytest.fixture(params=["disk"])
def building(archive: Archive, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Building]:
    output = tmp_path / "out"
    output.mkdir()
    workspace = output / ".debian-13-fine-amd64-20260101.0.build"
    place, tree, env = workspace, "tree", {**os.environ, memory.NEVER: "1"}
    if request.param == "memory":
        if not memory.room(2**30):
            pytest.skip("memory has no room for a tree here")
        place = Path(f"/dev/shm/debian-cloud-{os.geteuid()}")
        tree = f"{hashlib.sha256(bytes(workspace)).hexdigest()[:16]}.*/tree"
        del env[memory.NEVER]
    process = subprocess.Popen(
        [*("debian-cloud", "build", "fine", *AGAIN, *archive.sources, "--output"), output],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # If the tests run in the background, SIGINT is ignored, and the build would ignore it, too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    # Another debian-cloud may hold the cache for some time.
    within(900, lambda: bool([*place.glob(f"{tree}/etc")]) or process.poll() is not None)
    if not [*place.glob(f"{tree}/etc")]:
        process.kill()
        pytest.fail(process.communicate()[1])
    yield Building(process, output)
    assert not (request.param == "memory" and [*place.glob(tree)])
    process.kill()
    process.wait()
    for path in output.iterdir():
        folders.remove(path)


@pytest.mark.parametrize(
    ("building", "number"),
    [
        ("disk", signal.SIGINT),
        ("disk", signal.SIGTERM),
        ("disk", signal.SIGHUP),
        ("memory", signal.SIGINT),
        ("memory", signal.SIGTERM),
    ],
    indirect=["building"],
)
def test_an_interrupted_build_leaves_its_message_and_nothing_else(building: Building, number: signal.Signals) -> None:
    # traces() finds the running build.
    assert traces(building.output)
    before = loop_devices()
    building.process.send_signal(number)
    _, said = building.process.communicate(timeout=30)
    # As debian-cloud(1) documents, and as a shell reports a process that a signal ended.
    assert building.process.returncode == 128 + number
    assert said.splitlines()[-1] == f"debian-cloud: {'interrupted' if number == signal.SIGINT else 'terminated'}"
    assert "Traceback" not in said
    assert building.workspaces() == []
    assert traces(building.output) == []
    assert loop_devices() == before


def test_two_builds_of_one_image_in_one_place(building: Building, archive: Archive) -> None:
    done = debian_cloud("build", "fine", *AGAIN, *archive.sources, "--output", building.output)
    refused(done, 1, "another debian-cloud uses", "wait until it has ended")
    assert building.process.poll() is None
    building.process.send_signal(signal.SIGINT)
    building.process.communicate(timeout=30)
    assert building.workspaces() == []


def test_what_a_killed_build_left_is_no_obstacle_once_its_processes_have_ended(
    building: Building, archive: Archive
) -> None:
    # A stopped process neither ends nor notices that the build was killed.
    within(60, lambda: building.signal_children(signal.SIGSTOP))
    building.process.kill()
    building.process.wait()
    (workspace,) = building.workspaces()
    mark = building.output / workspace / "mark"
    mark.touch()
    again: list[str | Path] = [
        "build",
        "fine",
        *AGAIN,
        *archive.sources,
        "--output",
        building.output,
    ]
    refused(debian_cloud(*again), 1, "another debian-cloud uses")
    building.signal_children(signal.SIGKILL)
    # The machine may be slow, because the world is made at the same time.
    within(60, lambda: not traces(building.output))
    assert traces(building.output) == []
    said = building.output.with_name("said")
    with said.open("wb") as out:
        second = subprocess.Popen(["debian-cloud", *again], stdin=subprocess.DEVNULL, stderr=out)
    try:
        within(900, lambda: not mark.exists() or second.poll() is not None)
        assert not mark.exists(), said.read_text()
        # Not SIGINT: it is ignored if the tests run in the background.
        second.send_signal(signal.SIGTERM)
        assert second.wait(timeout=60) == 143
    finally:
        second.kill()
        second.wait()
    assert building.workspaces() == []
