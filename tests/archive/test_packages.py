# SPDX-License-Identifier: GPL-3.0-or-later
"""Packages: what the archive accepts from its uploaders, and what it refuses."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.archive.conftest import Archive, Key, Maker


def test_accepts_a_package(archive: Archive, make: Maker, uploader: Key) -> None:
    archive.take(make.deb(uploader))
    assert "debian-cloud-config-demo 1.0" in archive.packages()
    pool = archive.public / "pool/main/d/debian-cloud"
    assert sorted(path.name for path in pool.iterdir()) == [
        "debian-cloud-config-demo_1.0_all.deb",
        "debian-cloud_1.0_all.changes",
        "debian-cloud_1.0_amd64.buildinfo",
    ]
    assert archive.queue() == []
    assert list((archive.path / "tmp").iterdir()) == []
    # The index lists it only after publish.
    assert "debian-cloud-config-demo" not in (archive.dist / "main/binary-amd64/Packages").read_text()
    archive.run("publish")
    assert "debian-cloud-config-demo" in (archive.dist / "main/binary-amd64/Packages").read_text()


def test_accepts_a_newer_version(archive: Archive, make: Maker, uploader: Key) -> None:
    archive.take(make.deb(uploader, "1.0"))
    archive.take(make.deb(uploader, "1.1"))
    assert "debian-cloud-config-demo 1.1" in archive.packages()


def test_same_upload_twice_changes_nothing(archive: Archive, make: Maker, uploader: Key) -> None:
    upload = make.deb(uploader)
    archive.take(upload)
    before = archive.snapshot()
    archive.take(upload)
    assert archive.snapshot() == before


def test_one_bad_upload_does_not_hold_up_the_others(archive: Archive, make: Maker, uploader: Key) -> None:
    archive.put(make.deb(None, "0.9", package="debian-cloud-a"))
    archive.put(make.deb(uploader, "1.0"))
    done = archive.run("accept", check=False)
    assert done.returncode == 1
    assert "refused: debian-cloud_0.9_all.changes" in done.stdout
    assert "accepted: debian-cloud_1.0_all.changes" in done.stdout
    assert "debian-cloud-config-demo 1.0" in archive.packages()


def test_refuses_unsigned(archive: Archive, make: Maker) -> None:
    assert "not signed by an uploader" in archive.refuse(make.deb(None))


def test_refuses_unknown_key(archive: Archive, make: Maker, stranger: Key) -> None:
    assert "not signed by an uploader" in archive.refuse(make.deb(stranger))


def test_refuses_the_archives_own_key(archive: Archive, make: Maker) -> None:
    assert "not signed by an uploader" in archive.refuse(make.deb(archive.key))


def test_refuses_known_key_without_right(archive: Archive, make: Maker, uploader: Key) -> None:
    rules = archive.path / "conf/uploaders"
    lines = rules.read_text().splitlines(keepends=True)
    rules.write_text("".join(line for line in lines if not line.startswith(uploader.fingerprint)))
    assert "may no longer upload" in archive.refuse(make.deb(uploader))


def test_refuses_file_changed_after_signing(archive: Archive, make: Maker, uploader: Key) -> None:
    upload = make.deb(uploader)
    data = upload.files[0].read_bytes()
    upload.files[0].write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert "does not match" in archive.refuse(upload)


def test_refuses_changes_changed_after_signing(archive: Archive, make: Maker, uploader: Key) -> None:
    upload = make.deb(uploader)
    upload.changes.write_text(upload.changes.read_text().replace("medium", "high"))
    archive.refuse(upload)


def test_refuses_text_around_the_signature(archive: Archive, make: Maker, uploader: Key, stranger: Key) -> None:
    signed = make.deb(uploader, "1.0")
    other = make.deb(None, "2.0")
    other.changes.write_text(other.changes.read_text() + "\n" + signed.changes.read_text())
    archive.refuse(other)


def test_refuses_missing_file(archive: Archive, make: Maker, uploader: Key) -> None:
    upload = make.deb(uploader)
    upload.files[0].unlink()
    assert f"'{upload.files[0].name}' not found" in archive.refuse(upload)


def test_refuses_same_version_with_other_content(archive: Archive, make: Maker, uploader: Key) -> None:
    archive.take(make.deb(uploader, content="one"))
    archive.refuse(make.deb(uploader, content="two"))


def test_refuses_older_version(archive: Archive, make: Maker, uploader: Key) -> None:
    archive.take(make.deb(uploader, "1.1"))
    archive.refuse(make.deb(uploader, "1.0"))


def test_accepts_a_configuration_of_its_own_source(archive: Archive, make: Maker, uploader: Key) -> None:
    name = "debian-cloud-config-my-hpc"
    archive.take(make.deb(uploader, package=name, source=name))
    assert f"{name} 1.0" in archive.packages()


def test_a_configurations_own_source_brings_nothing_but_configurations(
    archive: Archive, make: Maker, uploader: Key
) -> None:
    source = "debian-cloud-config-my-hpc"
    for number, package in enumerate(
        ("debian-cloud", "debian-cloud-archive-keyring", "debian-cloud-archive-keyring-trixie", "openssh-server"), 1
    ):
        upload = make.deb(uploader, str(number), package=package, source=source)
        reason = archive.refuse(upload)
        # The first two names belong to other sources already.
        word = "belongs to the source package debian-cloud" if number < 3 else "No distribution accepting"
        assert word in reason
    # Another source may not use only the beginning of the name, nor bring a disk image.
    for number, other in enumerate(("debian-cloud-config", "my-debian-cloud-config-hpc"), 11):
        assert "No distribution accepting" in archive.refuse(
            make.deb(uploader, str(number), package=source, source=other)
        )
    image = make.image(uploader)
    image.changes.write_text(unsigned(image.changes.read_text()).replace("Source: debian-cloud", f"Source: {source}"))
    uploader.clearsign(image.changes)
    assert "No distribution accepting" in archive.refuse(image)


def unsigned(text: str) -> str:
    """The text of a .changes without its signature."""
    return text.partition("\n\n")[2].partition("-----BEGIN PGP SIGNATURE-----")[0]


def test_refuses_foreign_packages(archive: Archive, make: Maker, uploader: Key) -> None:
    for upload in (
        make.deb(uploader, "2", package="openssh-server"),
        make.deb(uploader, "3", package="debian-cloud-x", source="other"),
    ):
        assert "No distribution accepting" in archive.refuse(upload)


def test_refuses_a_new_keyring_from_an_uploader(archive: Archive, make: Maker, uploader: Key) -> None:
    upload = make.deb(uploader, "9999", package="debian-cloud-archive-keyring")
    own = "debian-cloud-archive-keyring belongs to the source package debian-cloud-archive-keyring"
    assert own in archive.refuse(upload)
    # An override by mistake does not give it away either.
    (archive.path / "conf/overrides").write_text("debian-cloud-archive-keyring debian-cloud\n")
    assert "No distribution accepting" in archive.refuse(upload)


def test_refuses_unknown_suite(archive: Archive, make: Maker, uploader: Key) -> None:
    archive.refuse(make.deb(uploader, suite="sid"))


@pytest.mark.parametrize("which", ["file", "changes"])
def test_refuses_links_in_the_queue(archive: Archive, make: Maker, uploader: Key, which: str) -> None:
    upload = make.deb(uploader)
    archive.put(upload)
    queued = archive.path / "incoming" / (upload.changes.name if which == "changes" else upload.files[0].name)
    secret = make.path / queued.name
    queued.rename(secret)
    queued.symlink_to(secret)
    before = archive.snapshot()
    done = archive.run("accept", check=False)
    assert done.returncode == 1
    assert f"{queued.name} is not a regular file" in done.stdout
    assert which == "changes" or archive.queue() == []
    assert archive.snapshot() == before
    assert secret.exists()


def test_unsigned_upload_cannot_take_the_files_of_another(archive: Archive, make: Maker, uploader: Key) -> None:
    upload = make.deb(uploader)
    archive.put(upload)
    thief = archive.path / "incoming/a.changes"
    thief.write_text("Files:\n" + f" 0 0 misc optional {upload.files[0].name}\n")
    assert archive.run("accept", check=False).returncode == 1
    assert "debian-cloud-config-demo 1.0" in archive.packages()


def test_names_of_uploads_are_never_options_or_paths(archive: Archive, make: Maker, uploader: Key) -> None:
    upload = make.deb(uploader)
    archive.put(upload)
    queue = archive.path / "incoming"
    (queue / upload.changes.name).rename(queue / "--version and $(touch x).changes")
    archive.run("accept")
    assert "debian-cloud-config-demo 1.0" in archive.packages()


def test_cut_off_accept_is_taken_up_again(archive: Archive, make: Maker, uploader: Key) -> None:
    upload = make.deb(uploader)
    left = archive.path / "tmp/upload"
    left.mkdir()
    archive.put(upload)
    for path in (archive.path / "incoming").iterdir():
        path.rename(left / path.name)
    # The copies that were being made when the run was interrupted.
    shutil.copy(left / upload.files[0].name, archive.path / "incoming")
    for half in (left / upload.files[0].name, archive.path / "tmp/queue" / upload.changes.name):
        half.parent.mkdir(exist_ok=True)
        half.write_text("half")
    archive.run("accept")
    assert "debian-cloud-config-demo 1.0" in archive.packages()


def test_two_at_once_one_is_told_to_wait(archive: Archive, make: Maker, uploader: Key) -> None:
    archive.put(make.deb(uploader))
    with (archive.path / "lock").open("a") as lock:
        with subprocess.Popen(["flock", str(lock.fileno())], pass_fds=[lock.fileno()]) as holder:
            holder.wait()
        for verb in ("accept", "publish"):
            done = archive.run(verb, check=False)
            assert done.returncode == 1
            assert "another debian-cloud-archive is using" in done.stderr
            assert "hint: " in done.stderr
    assert len(archive.queue()) == 3
    archive.run("accept")
