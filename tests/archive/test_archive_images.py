# SPDX-License-Identifier: GPL-3.0-or-later
"""Images: what the archive publishes of a signed upload, and what it refuses."""

from __future__ import annotations

import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from debian_cloud import cli
from debian_cloud.errors import USAGE, Error

if TYPE_CHECKING:
    from pathlib import Path

    from tests.archive.conftest import Archive, Key, Maker

SERIAL = "20261120.0"
STEM = f"debian-13-ec2-amd64-{SERIAL}"


def images(archive: Archive) -> Path:
    """The folder of the serials."""
    return archive.public / "images/trixie/ec2/amd64"


def test_publishes_an_image(archive: Archive, make: Maker, uploader: Key) -> None:
    upload = make.image(uploader)
    archive.take(upload)
    folder = images(archive) / SERIAL
    sums = {f"{name}{suffix}" for name in ("SHA256SUMS", "SHA512SUMS") for suffix in ("", ".sign", ".gpg")}
    uploaded = {path.name for path in (*upload.files, upload.changes)}
    assert {path.name for path in folder.iterdir()} == uploaded | sums
    for path in (*upload.files, upload.changes):
        assert (folder / path.name).read_bytes() == path.read_bytes()
    assert archive.queue() == []
    assert list((archive.path / "tmp").iterdir()) == []
    # The data is there first; only publish leads to it.
    listed = f"Filename: images/trixie/ec2/amd64/{SERIAL}/{STEM}.qcow2"
    assert [path.name for path in images(archive).iterdir()] == [SERIAL]
    assert listed not in (archive.dist / "main/images/Images").read_text()
    archive.run("publish")
    assert listed in (archive.dist / "main/images/Images").read_text()
    assert (images(archive) / "current").readlink().name == SERIAL


def test_sums_verify_in_both_spellings(archive: Archive, make: Maker, uploader: Key, env: dict[str, str]) -> None:
    archive.take(make.image(uploader))
    folder = images(archive) / SERIAL
    keyring = archive.path / "tmp/keyring.gpg"
    archive.key.gpg("--export", "--output", keyring)
    for name, tool in (("SHA256SUMS", "sha256sum"), ("SHA512SUMS", "sha512sum")):
        assert (folder / f"{name}.sign").read_text().startswith("-----BEGIN PGP SIGNATURE-----")
        assert not (folder / f"{name}.gpg").read_bytes().startswith(b"-")
        for signature in (f"{name}.sign", f"{name}.gpg"):
            command = ["gpgv", "--keyring", str(keyring), signature, name]
            subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True)
        subprocess.run([tool, "--strict", "--check", name], cwd=folder, env=env, check=True, capture_output=True)
        assert STEM + ".qcow2" in (folder / name).read_text()


def test_current_is_the_highest_serial(archive: Archive, make: Maker, uploader: Key) -> None:
    for serial in ("20261120.9", "20261120.10", "20261119.0"):
        archive.take(make.image(uploader, serial))
    archive.run("publish")
    assert (images(archive) / "current").readlink().name == "20261120.10"
    index = (archive.dist / "main/images/Images").read_text()
    assert index.count("Status: current") == 1
    assert index.count("Status: superseded") == 2


def test_current_moves_only_when_the_index_is_published(archive: Archive, make: Maker, uploader: Key) -> None:
    current = images(archive) / "current"
    archive.take(make.image(uploader, "20261120.0"))
    archive.run("publish")
    archive.take(make.image(uploader, "20261121.0"))
    assert current.readlink().name == "20261120.0"
    secret = archive.path / "gnupg/private-keys-v1.d"
    secret.rename(archive.path / "gnupg/gone")
    assert archive.run("publish", check=False).returncode == 1
    assert current.readlink().name == "20261120.0"
    (archive.path / "gnupg/gone").rename(secret)
    # What a power failure leaves between the signature and the link.
    (images(archive) / ".current").symlink_to("20261119.0")
    archive.run("publish")
    assert current.readlink().name == "20261121.0"
    assert sorted(path.name for path in images(archive).iterdir()) == ["20261120.0", "20261121.0", "current"]


def test_published_paths_are_never_rewritten(archive: Archive, make: Maker, uploader: Key) -> None:
    archive.take(make.image(uploader))
    assert "never rewritten" in archive.refuse(make.image(uploader, content=b"another"))
    assert "never rewritten" in archive.refuse(make.image(uploader))


@pytest.mark.parametrize("signer", [None, "stranger", "archive"])
def test_refuses_other_signers(archive: Archive, make: Maker, stranger: Key, signer: str | None) -> None:
    archive.refuse(make.image({None: None, "stranger": stranger, "archive": archive.key}[signer]))


def test_refuses_file_changed_after_signing(archive: Archive, make: Maker, uploader: Key) -> None:
    for name in range(3):
        upload = make.image(uploader)
        data = upload.files[name].read_bytes()
        upload.files[name].write_bytes(bytes([data[0] ^ 1]) + data[1:])
        assert "does not match" in archive.refuse(upload)


def test_refuses_missing_file(archive: Archive, make: Maker, uploader: Key) -> None:
    for name in range(3):
        upload = make.image(uploader)
        upload.files[name].unlink()
        assert "not found" in archive.refuse(upload)


@pytest.mark.parametrize(
    "lie",
    [
        {"SHA256": "0" * 64},
        {"SHA512": "0" * 128},
        {"Buildinfo-SHA256": "0" * 64},
        {"Buildinfo-SHA512": "0" * 128},
        {"Size": "1"},
        {"Suite": "forky"},
        {"Version": "20261121.0"},
        {"Image": "debian-cloud-config-../../../dists"},
        {"Filename": f"images/trixie/ec2/amd64/../../../../conf/{STEM}.qcow2"},
        {"Filename": f"/images/trixie/ec2/amd64/{SERIAL}/{STEM}.qcow2"},
        {"Buildinfo": "/etc/passwd"},
        {"Architecture": "../amd64"},
        {"Surprise": "a field that nobody knows"},
    ],
    ids=lambda lie: "-".join(f"{field}={value[:12]}" for field, value in lie.items()),
)
def test_refuses_record_that_lies(archive: Archive, make: Maker, uploader: Key, lie: dict[str, str]) -> None:
    assert "error: " in archive.refuse(make.image(uploader, record=lie))


CHANGES = "Image-Changes:\n add htop\n hostname x\n"


def test_an_official_suite_refuses_an_unofficial_image(archive: Archive, make: Maker, uploader: Key) -> None:
    reason = archive.refuse(make.image(uploader, record={"Official": "no"}, buildinfo_fields=CHANGES))
    (error,) = (line for line in reason.splitlines() if "error: " in line)
    (hint,) = (line for line in reason.splitlines() if "hint: " in line)
    assert "the image is not official (add htop, hostname x), and trixie takes official images alone" in error
    assert "debian-cloud new" in hint
    # So does an archive made before there were others.
    (archive.path / "conf/unofficial").unlink()
    assert "not official" in archive.refuse(make.image(uploader, record={"Official": "no"}, buildinfo_fields=CHANGES))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    ("record", "fields"), [({"Official": "no"}, ""), ({}, CHANGES), ({"Official": "yes"}, CHANGES)]
)
def test_refuses_a_record_that_hides_what_was_changed(
    archive: Archive, make: Maker, uploader: Key, record: dict[str, str], fields: str, *, signed: bool
) -> None:
    upload = make.image(uploader, record=record, buildinfo_fields=fields)
    if signed:
        # As debsign does it: first the .buildinfo, then the .changes that lists it.
        uploader.clearsign(upload.files[1])
        header = {"Binary": "debian-cloud-config-ec2", "Architecture": "amd64", "Version": SERIAL}
        upload = make.changes(upload.files, uploader, upload.changes.name, header)
    assert "do not agree on whether the image is official" in archive.refuse(upload)


@pytest.mark.parametrize("fields", ["", CHANGES], ids=["nothing changed", "changed"])
def test_refuses_records_that_differ_on_whether_the_image_is_official(
    archive: Archive, make: Maker, uploader: Key, fields: str
) -> None:
    disk, buildinfo, record = make.image(uploader, buildinfo_fields=fields).files
    raw = disk.with_suffix(".raw")
    shutil.copy(disk, raw)
    said = record.read_text()
    record.write_text(said + "\n" + said.replace("qcow2", "raw") + "Official: no\n")
    header = {"Binary": "debian-cloud-config-ec2", "Architecture": "amd64", "Version": SERIAL}
    upload = make.changes([disk, raw, buildinfo, record], uploader, f"{STEM}.changes", header)
    assert "do not agree on whether the image is official" in archive.refuse(upload)


def test_refuses_a_word_that_is_neither_yes_nor_no(archive: Archive, make: Maker, uploader: Key) -> None:
    assert "neither yes nor no" in archive.refuse(make.image(uploader, record={"Official": "maybe"}))


def test_a_suite_may_take_unofficial_images(archive: Archive, make: Maker, uploader: Key) -> None:
    policy = archive.path / "conf/unofficial"
    assert all(line.startswith("#") for line in policy.read_text().splitlines())
    policy.write_text(policy.read_text() + "forky\ntrixie-not\n")
    archive.refuse(make.image(uploader, record={"Official": "no"}, buildinfo_fields=CHANGES))
    policy.write_text(policy.read_text() + "trixie\n")
    archive.take(make.image(uploader, record={"Official": "no"}, buildinfo_fields=CHANGES))
    archive.take(make.image(uploader, "20261121.0"))
    archive.run("publish")
    index = (archive.dist / "main/images/Images").read_text()
    assert index.count("Official: no\n") == 1
    assert index.count("Image: ") == 2


def test_init_writes_which_suites_take_unofficial_images(short_path: Path, env: dict[str, str]) -> None:
    folder = short_path / "unofficial"
    init = ["debian-cloud-archive", "init", str(folder), "--suite", "trixie", "--suite", "sid"]

    def run(*suites: str) -> subprocess.CompletedProcess[str]:
        options = [word for suite in suites for word in ("--unofficial", suite)]
        return subprocess.run([*init, *options], env=env, text=True, capture_output=True, check=False, timeout=120)

    done = run("forky")
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        2,
        "error: --unofficial forky is not a suite of the archive: trixie sid",
    )
    assert not folder.exists()
    assert run("sid").returncode == 0
    lines = (folder / "conf/unofficial").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["sid"]
    shutil.rmtree(folder)


def test_refuses_image_for_another_suite(archive: Archive, make: Maker, uploader: Key) -> None:
    archive.refuse(make.image(uploader, suite="sid"))


def test_refuses_surplus_file(archive: Archive, make: Maker, uploader: Key) -> None:
    assert "does not name" in archive.refuse(make.image(uploader, extra="index.html"))
    assert "does not name" in archive.refuse(make.image(uploader, extra="SHA256SUMS"))


def test_refuses_package_among_the_files_of_an_image(archive: Archive, make: Maker, uploader: Key) -> None:
    deb = make.deb(uploader)
    image = make.image(None)
    moved = deb.files[0].rename(image.changes.parent / deb.files[0].name)
    fields = {"Architecture": "amd64 all", "Version": "1.0", "Binary": "debian-cloud-config-demo"}
    mixed = make.changes([*image.files, moved], uploader, image.changes.name, fields)
    assert "No distribution accepting" in archive.refuse(mixed)


def test_image_cut_off_before_its_admission_is_taken_up_again(archive: Archive, make: Maker, uploader: Key) -> None:
    upload = make.image(uploader)
    archive.put(upload)
    # What a power failure leaves between reprepro's end and the rename.
    staging = archive.path / "tmp/staging/trixie"
    signed = archive.path / "tmp/signed"
    staging.mkdir(parents=True)
    signed.mkdir()
    for path in upload.files:
        (archive.path / "incoming" / path.name).rename(staging / path.name)
    (archive.path / "incoming" / upload.changes.name).rename(signed / upload.changes.name)
    (staging / "SHA256SUMS").write_text("half")
    archive.run("accept")
    assert (images(archive) / SERIAL / "SHA256SUMS.gpg").exists()


@pytest.mark.parametrize(
    ("kind", "tool", "pattern"),
    [
        ("package", "reprepro", "*processincoming*"),
        ("image", "reprepro", "*processincoming*"),
        ("image", "mv", "*-T*/public/images/*"),
    ],
)
def test_accept_killed_after_a_step_is_taken_up_again(
    archive: Archive, make: Maker, uploader: Key, tmp_path: Path, kind: str, tool: str, pattern: str
) -> None:
    """Kill -9 of all that runs, right after reprepro took the upload or the folder got its public name."""
    shims = tmp_path / "shims"
    shims.mkdir()
    (shims / tool).write_text(
        f'#!/bin/sh\n{shutil.which(tool)} "$@" || exit\ncase "$*" in {pattern}) kill -9 0 ;; esac\n'
    )
    (shims / tool).chmod(0o755)
    upload = make.image(uploader) if kind == "image" else make.deb(uploader)
    archive.put(upload)
    env = {**archive.env, "PATH": f"{shims}:{archive.env['PATH']}"}
    command = ["debian-cloud-archive", "accept", str(archive.path)]
    done = subprocess.run(command, env=env, start_new_session=True, capture_output=True, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert archive.queue() == []

    again = archive.run("accept")
    assert f"accepted: {upload.changes.name}: into " in again.stdout
    assert "refused" not in (archive.path / "log/accept.log").read_text()
    assert list((archive.path / "rejected").iterdir()) == []
    assert list((archive.path / "tmp").iterdir()) == []
    assert archive.queue() == []
    archive.run("publish")
    index = "main/images/Images" if kind == "image" else "main/binary-amd64/Packages"
    assert upload.files[0].name in (archive.dist / index).read_text()
    assert (images(archive) / "current").is_symlink() == (kind == "image")
    assert archive.run("accept").stdout == ""


@pytest.mark.parametrize("kind", ["nothing", "file"])
def test_an_upload_that_is_no_folder_is_wrong_use(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "upload"
    if kind == "file":
        folder.touch()
    with pytest.raises(Error, match=f"{folder} is no folder") as refused:
        cli.run(["admit", str(folder), "trixie"])
    assert refused.value.status == USAGE
