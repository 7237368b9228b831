# SPDX-License-Identifier: GPL-3.0-or-later
"""What a source, an operator or a kill does to a run: it ends in time, says why, and leaves the mirror as it was."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import bounds
from tests.mirror.servers import Busy, Dripping, Handler, Polite, Quiet, ServerOfSix, serving
from tests.mirror.tree import COMMAND, Archive, Key, Mirror, Server, seen_by_client, sha


@pytest.fixture
def http_mirror(archive: Archive, servers: dict[str, Server], key: Key, tmp_path: Path) -> Mirror:
    """A mirror of the test's archive, by HTTP, that has run."""
    mirror = Mirror(f"{servers['http'].url}/{archive.root.name}", tmp_path / "mirror", key.keyring)
    mirror.ok()
    return mirror


@pytest.mark.parametrize("handler", [Busy, Dripping])
def test_a_source_that_never_ends_is_given_up(http_mirror: Mirror, archive: Archive, handler: Handler) -> None:
    with serving(handler, archive.root) as url:
        http_mirror.source = url
        begun = time.monotonic()
        http_mirror.refused("--timeout", "2", says="cannot fetch from|is not signed by")
        assert time.monotonic() - begun < 100


def test_a_page_in_the_place_of_a_file_is_not_shown(http_mirror: Mirror, archive: Archive) -> None:
    archive.add_image("ec2", "20261121.0")
    archive.publish()
    [image] = (archive.root / "images/trixie/ec2/amd64/20261121.0").glob("*.?.qcow2")
    image.unlink()
    with serving(Polite, archive.root) as url:
        http_mirror.source = url
        http_mirror.refused(says=r"qcow2 does not have the size and hash")


def test_a_transfer_ends_with_its_run(
    http_mirror: Mirror, archive: Archive, slow: Callable[[str, int], Server]
) -> None:
    """Otherwise a curl or rsync would write into the next run's staging area."""
    archive.add_image("ec2", "20261121.0", 5_000_000)
    archive.publish()
    http_mirror.source = slow("http", 100).url
    process = subprocess.Popen(http_mirror.command(), stdout=subprocess.DEVNULL, start_new_session=True)
    place = f"{http_mirror.dest}/.mirror/"

    def transfers() -> list[str]:
        done = subprocess.run(["pgrep", "--full", f"^[^ ]*curl .*{place}"], capture_output=True, text=True)
        return done.stdout.split()

    deadline = time.monotonic() + 60
    while (
        not list((http_mirror.dest / ".mirror").glob("incoming/images/**/*.?.qcow2")) and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    assert transfers()
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 10
    while transfers() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert transfers() == []


def test_the_next_source_takes_the_place_of_one_that_fails(http_mirror: Mirror, archive: Archive) -> None:
    archive.add_image("ec2", "20261121.0")
    archive.publish()
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        command = http_mirror.command()
        done = subprocess.run([*command[:-2], dead, *command[-2:]], capture_output=True, text=True, check=True)
    assert re.search("warning: cannot fetch from http://127.0.0.1.*: trying the next source", done.stderr)
    assert seen_by_client(http_mirror.dest) == archive.date


def test_an_address_of_ipv6_is_an_address(http_mirror: Mirror, archive: Archive) -> None:
    archive.publish()
    try:
        with serving(Quiet, archive.root, ServerOfSix) as url:
            http_mirror.source = url
            http_mirror.ok()
    except OSError as error:
        pytest.skip(f"this machine has no IPv6: {error}")
    assert seen_by_client(http_mirror.dest) == archive.date


@pytest.mark.parametrize("name", ["images", "pool", "images/trixie/ec2"])
def test_a_link_of_the_operator_is_kept(http_mirror: Mirror, archive: Archive, tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "disk"
    place = http_mirror.dest / name
    place.rename(elsewhere)
    place.symlink_to(elsewhere)
    image = archive.add_image("ec2", "20261121.0")
    archive.add_deb("new", "1")
    archive.publish()
    http_mirror.ok()
    assert place.readlink() == elsewhere
    assert seen_by_client(http_mirror.dest) == archive.date
    assert sha(http_mirror.dest / image.relative_to(archive.root)) == sha(image)
    assert "images/trixie/ec2/amd64/20261119.0" not in (http_mirror.dest / ".mirror/left").read_text()
    http_mirror.ok("--verify-all")


def test_a_file_system_of_its_own_is_kept(http_mirror: Mirror, archive: Archive) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount the file system that this needs")
    place = http_mirror.dest / "images"
    shutil.rmtree(place)
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    try:
        archive.add_image("ec2", "20261121.0")
        archive.publish()
        http_mirror.ok()
        assert seen_by_client(http_mirror.dest) == archive.date
        assert list(place.rglob(".*")) == []
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("how", ["directory", "file"])
def test_what_is_in_the_way_is_named(http_mirror: Mirror, archive: Archive, how: str) -> None:
    image = archive.add_image("ec2", "20261121.0").relative_to(archive.root)
    archive.publish()
    place = http_mirror.dest / image
    if how == "directory":
        place.mkdir(parents=True)
        http_mirror.refused(says=f"the mirror has a directory {re.escape(str(image))}, which is a file")
        place.rmdir()
    else:
        place.parent.write_text("")
        http_mirror.refused(says=f"the mirror has a file {re.escape(str(image.parent))}, which is a directory")
        place.parent.unlink()
    http_mirror.ok()


@pytest.mark.parametrize("name", ["dists/trixie/InRelease", "dists/trixie/Release", "project/trace/master"])
def test_a_directory_in_the_place_of_a_file_does_not_stay(
    archive: Archive, servers: dict[str, Server], key: Key, tmp_path: Path, name: str
) -> None:
    mirror = Mirror(f"{servers['rsync'].url}/{archive.root.name}", tmp_path / "mirror", key.keyring)
    kept = tmp_path / "kept"
    (archive.root / name).rename(kept)
    (archive.root / name / "x").mkdir(parents=True)
    mirror.run()
    shutil.rmtree(archive.root / name)
    kept.rename(archive.root / name)
    mirror.ok()
    assert seen_by_client(mirror.dest) == archive.date


def test_no_file_is_from_the_future(http_mirror: Mirror, archive: Archive) -> None:
    """A client asks for what is newer than what it has, and would never get the next InRelease."""
    image = archive.add_image("ec2", "20261121.0")
    archive.publish()
    for path in (image, archive.root / "dists/trixie/InRelease", archive.root / "dists/trixie/main/images/Images"):
        os.utime(path, (time.time() + 10**8,) * 2)
    http_mirror.ok()
    late = [path for path in http_mirror.dest.rglob("*") if path.lstat().st_mtime > time.time() + 60]
    assert late == []


def test_modes_of_the_source_do_not_matter(archive: Archive, key: Key, mirror: Mirror) -> None:
    image = archive.add_image("ec2", "20261121.0")
    archive.publish()
    image.chmod(0o4775)
    mirror.ok()
    assert (mirror.dest / image.relative_to(archive.root)).stat().st_mode & 0o7777 == 0o644


def test_the_reason_is_the_sources_own(
    archive: Archive, servers: dict[str, Server], key: Key, tmp_path: Path
) -> None:
    url = servers["rsync"].url.removesuffix("/tree")
    mirror = Mirror(f"{url}/nothing", tmp_path / "mirror", key.keyring)
    mirror.refused(says="cannot fetch from .*Unknown module 'nothing'")


def test_removals_have_a_bound(http_mirror: Mirror, archive: Archive) -> None:
    del archive.images["ec2 20261119.0"]
    archive.publish()
    http_mirror.ok()
    left = http_mirror.dest / ".mirror/left"
    old = [line.split()[1] for line in left.read_text().splitlines()]
    assert len(old) > 5
    left.write_text("".join(f"{int(time.time()) - 20 * 86400} {path}\n" for path in old))
    own = next(path for path in (http_mirror.dest / "project/trace").iterdir() if path.name != "master")
    own.unlink()
    done = http_mirror.run("--max-delete", "5")
    assert done.returncode == 1
    assert own.exists()
    assert f"{len(old)} files are old enough to be removed, but --max-delete is 5" in done.stderr
    assert all((http_mirror.dest / path).exists() for path in old)
    http_mirror.ok("--max-delete", str(len(old)))
    assert not any((http_mirror.dest / path).exists() for path in old)


def test_what_does_not_fit_is_said_before_it_is_fetched(http_mirror: Mirror, archive: Archive) -> None:
    image = archive.add_image("ec2", "20261121.0")
    stanza = archive.images["ec2 20261121.0"]
    archive.images["ec2 20261121.0"] = stanza.replace("Size: 50000\n", f"Size: {2**40}\n")
    archive.files_extra = (f"{sha(image)} {2**40} {image.relative_to(archive.root)}",)
    archive.publish()
    http_mirror.refused(says="the mirror needs [0-9]{13,} bytes more")
    assert not (http_mirror.dest / ".mirror/incoming" / image.relative_to(archive.root)).exists()


def test_a_mirror_of_another_user_is_refused(http_mirror: Mirror) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    os.chown(http_mirror.dest / ".mirror", 65534, 65534)
    http_mirror.refused(says="belongs to another user")
    os.chown(http_mirror.dest / ".mirror", 0, 0)
    http_mirror.ok()


@pytest.mark.parametrize(
    "name", ["dists/stable", "images/trixie/ec2/amd64/latest", "pool/.current.new", "pool/extra"]
)
def test_nothing_is_removed_through_a_link(http_mirror: Mirror, archive: Archive, tmp_path: Path, name: str) -> None:
    """A link is not a second copy of what it leads to, and what an operator has outside was never listed."""
    thesis = tmp_path / "home/thesis.tex"
    thesis.parent.mkdir()
    thesis.write_text("")
    target = {"stable": "trixie", "latest": "20261120.0"}.get(Path(name).name, str(thesis.parent))
    (http_mirror.dest / name).symlink_to(target)
    archive.publish()
    http_mirror.ok()
    left = http_mirror.dest / ".mirror/left"
    lines = [line.split()[1] for line in left.read_text().splitlines()]
    assert not [path for path in lines if path.startswith(f"{name}/")]
    left.write_text("".join(f"{int(time.time()) - 30 * 86400} {path}\n" for path in lines))
    http_mirror.ok()
    assert thesis.exists()
    assert seen_by_client(http_mirror.dest) == archive.date
    assert (http_mirror.dest / name).is_symlink() == (not name.endswith(".new"))


def test_an_rsync_ends_with_its_run(
    archive: Archive, slow: Callable[[str, int], Server], servers: dict[str, Server], key: Key, tmp_path: Path
) -> None:
    """It has two processes, and the second would write into what a later run shows."""
    archive.add_image("ec2", "20261121.0", 5_000_000)
    archive.publish()
    mirror = Mirror(f"rsync://{slow('rsync', 300).url.split('/')[2]}/tree", tmp_path / "mirror", key.keyring)
    process = subprocess.Popen(mirror.command(), stdout=subprocess.DEVNULL, start_new_session=True)

    def pieces() -> dict[Path, int]:
        found = (mirror.dest / ".mirror").glob("incoming/images/**/*.?.qcow2")
        return {path: path.stat().st_size for path in found}

    deadline = time.monotonic() + 60
    while max(pieces().values(), default=0) < 200_000 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(1)
    before = pieces()
    assert max(before.values()) < 5_000_000
    time.sleep(2)
    assert pieces() == before
    # Until the last of its processes has ended, no other run begins.
    mirror.source = f"{servers['rsync'].url}/{archive.root.name}"
    deadline = time.monotonic() + 20
    while "another debian-cloud uses" in mirror.run("--quiet").stderr and time.monotonic() < deadline:
        time.sleep(0.2)
    mirror.ok()
    assert seen_by_client(mirror.dest) == archive.date


@pytest.mark.parametrize(
    "name",
    [
        "images/trixie/ec2/amd64/20261120.0/SHA256SUMS",
        "pool/main/l/libcloud++/libcloud++_1.0+b1~rc1_amd64.deb",
    ],
)
def test_a_directory_at_one_source_does_not_harm_the_next(
    archive: Archive, servers: dict[str, Server], key: Key, tmp_path: Path, name: str
) -> None:
    mirror = Mirror(f"{servers['rsync'].url}/{archive.root.name}", tmp_path / "mirror", key.keyring)
    (archive.root / name).rename(tmp_path / "kept")
    (archive.root / name / "x").mkdir(parents=True)
    mirror.refused(says="is missing at the source")
    shutil.rmtree(archive.root / name)
    (tmp_path / "kept").rename(archive.root / name)
    mirror.source = f"{servers['http'].url}/{archive.root.name}"
    mirror.ok()
    assert seen_by_client(mirror.dest) == archive.date


def test_the_umask_is_not_that_of_the_mirror(archive: Archive, mirror: Mirror) -> None:
    subprocess.run(mirror.command("--quiet"), umask=0o077, check=True)
    modes = {path.stat().st_mode & 0o777 for path in mirror.dest.rglob("*") if ".mirror" not in path.parts}
    assert modes == {0o755, 0o644}
    assert mirror.dest.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("name", ["InRelease", "Release.gpg"])
def test_lines_without_an_end_take_little_memory(archive: Archive, mirror: Mirror, name: str) -> None:
    (archive.root / "dists/trixie" / name).write_bytes(b"a\n" * 2**23)
    done = bounds.within(200, list(mirror.command()))
    assert done.returncode == 1
    assert re.search(b"not signed by a key|do not agree with", done.stderr)


def test_a_run_that_was_killed_while_it_showed_is_mended(
    http_mirror: Mirror, archive: Archive, tmp_path: Path
) -> None:
    """Also if the next source is behind, and has the InRelease that is still shown."""
    behind = tmp_path / "behind"
    shutil.copytree(archive.root, behind, symlinks=True)
    archive.add_image("ec2", "20261121.0")
    archive.add_deb("new", "1")
    archive.publish()
    before = http_mirror.shown()
    script = (
        "import os, sys\nfrom debian_cloud.mirror.__main__ import main\n"
        "replace = os.replace\n"
        "def until(path, target):\n"
        "    if str(target).endswith('/InRelease'): sys.exit(9)\n"
        "    return replace(path, target)\n"
        "os.replace = until\nmain(sys.argv[1:])\n"
    )
    words = http_mirror.command()[len(COMMAND) :]
    assert subprocess.run([sys.executable, "-c", script, *words], capture_output=True).returncode == 9
    with serving(Quiet, behind) as url:
        http_mirror.source = url
        http_mirror.ok()
    shown = http_mirror.shown()
    indexes = [path for path in before if path.startswith("dists/")]
    assert {path: shown[path] for path in indexes} == {path: before[path] for path in indexes}


def test_a_source_that_is_behind_does_not_hide_the_fault_of_another(
    http_mirror: Mirror, archive: Archive, tmp_path: Path
) -> None:
    behind = tmp_path / "behind"
    shutil.copytree(archive.root, behind, symlinks=True)
    archive.add_image("ec2", "20261121.0")
    deb = archive.add_deb("new", "1")
    archive.publish()
    (statement,) = archive.root.glob("rebuilds/trixie/ec2/amd64/20261121.0/*.asc")
    statement.rename(tmp_path / "statement")
    with serving(Quiet, behind) as url:
        command = http_mirror.command("--quiet")
        done = subprocess.run([*command[:-1], url, command[-1]], capture_output=True, text=True, check=True)
    assert f"{statement.name} is missing at the source" in done.stderr
    # What was fetched is kept for the next run.
    assert sha(http_mirror.dest / ".mirror/incoming" / deb.relative_to(archive.root)) == sha(deb)


@pytest.mark.parametrize("name", ["SHA256SUMS", "SHA512SUMS.gpg"])
def test_damaged_checksums_are_fetched_again(http_mirror: Mirror, archive: Archive, name: str) -> None:
    path = http_mirror.dest / "images/trixie/ec2/amd64/20261120.0" / name
    content = path.read_bytes()
    path.write_bytes(content[:-2] + b"xx")
    http_mirror.ok("--verify-all")
    assert path.read_bytes() == content


def test_a_directory_in_the_place_of_a_link_is_named(http_mirror: Mirror, archive: Archive) -> None:
    place = http_mirror.dest / "images/trixie/ec2/amd64/current"
    place.unlink()
    place.mkdir()
    archive.publish()
    http_mirror.refused(says="the mirror has a directory images/trixie/ec2/amd64/current")


def test_a_damaged_release_of_the_mirror_is_named(http_mirror: Mirror, archive: Archive) -> None:
    path = http_mirror.dest / "dists/trixie/InRelease"
    path.write_text("")
    http_mirror.refused(says=f"{path} is damaged")
    path.unlink()
    http_mirror.ok()
    assert seen_by_client(http_mirror.dest) == archive.date


def test_after_a_day_all_files_are_looked_at(http_mirror: Mirror) -> None:
    path = http_mirror.dest / "images/trixie/ec2/amd64/20261120.0/SHA512SUMS"
    path.unlink()
    assert "still shows" in http_mirror.ok()
    mark = http_mirror.dest / ".mirror/trixie.shown"
    os.utime(mark, (time.time() - 90000,) * 2)
    http_mirror.ok()
    assert path.exists()


def test_a_damaged_keyring_is_named(http_mirror: Mirror, key: Key, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("no keys\n")
    http_mirror.keyring = keys
    http_mirror.refused(says="the keyring is damaged")
    armour = tmp_path / "armour"
    key.gpg("--armor", "--output", str(armour), "--export")
    keys.write_text(f"These are the keys.\n\n{armour.read_text()}")
    http_mirror.ok()
