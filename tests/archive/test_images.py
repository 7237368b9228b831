# SPDX-License-Identifier: GPL-3.0-or-later
"""Images: what the archive publishes of a signed upload, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from debian_cloud import projections
from debian_cloud.archive import steps
from debian_cloud.errors import USAGE, Error
from debian_cloud.host import sign
from debian_cloud.image import index
from debian_cloud.image.buildinfo import Buildinfo
from debian_cloud.image.machine import Machine
from debian_cloud.projections import provenance
from tests.archive.conftest import VIRTUAL_SIZE, qcow2
from tests.gnupg import remove

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.archive.conftest import Archive, Key, Maker

SERIAL = "20261120.0"
STEM = f"debian-13-ec2-amd64-{SERIAL}"
ATTESTATIONS = tuple(f"{STEM}.{suffix}" for suffix in ("cdx.json", "intoto.json", "intoto.json.gpg", "spdx.json"))
STATEMENT = f"{STEM}.intoto.json"
STABLE = "debian-13-ec2-amd64.qcow2"
"""The link to the disk whose name has no serial."""


def images(archive: Archive) -> Path:
    """The directory of the serials."""
    return archive.public / "images/trixie/ec2/amd64"


def test_publishes_an_image(archive: Archive, make: Maker, uploader: Key) -> None:
    upload = make.image(uploader)
    archive.take(upload)
    folder = images(archive) / SERIAL
    sums = {f"{name}{suffix}" for name in ("SHA256SUMS", "SHA512SUMS") for suffix in ("", ".sign", ".gpg")}
    uploaded = {path.name for path in (*upload.files, upload.changes)}
    assert {path.name for path in folder.iterdir()} == uploaded | sums | {*ATTESTATIONS, STABLE}
    for path in (*upload.files, upload.changes):
        assert (folder / path.name).read_bytes() == path.read_bytes()
    assert archive.queue() == []
    assert list((archive.path / "tmp").iterdir()) == []
    # The data is there first; the index lists it only after publish.
    listed = f"Filename: images/trixie/ec2/amd64/{SERIAL}/{STEM}.qcow2"
    assert [path.name for path in images(archive).iterdir()] == [SERIAL]
    assert listed not in (archive.dist / "main/images/Images").read_text()
    archive.run("publish")
    assert listed in (archive.dist / "main/images/Images").read_text()
    assert (images(archive) / "current").readlink().name == SERIAL


def test_current_has_an_address_that_stays(archive: Archive, make: Maker, uploader: Key) -> None:
    """A template for another tool names this file and the checksums beside it, whatever the serial is."""
    for serial in ("20261120.0", "20261121.0"):
        archive.take(make.image(uploader, serial))
        archive.run("publish")
        current = images(archive) / "current"
        assert str((current / STABLE).readlink()) == f"{STEM.replace(SERIAL, serial)}.qcow2"
        (line,) = re.findall(rf"^(\w+)  {re.escape(STABLE)}$", (current / "SHA256SUMS").read_text(), re.MULTILINE)
        assert line == hashlib.sha256((current / STABLE).read_bytes()).hexdigest()
        # The index lists files, of which this is another name.
        assert STABLE not in (archive.dist / "main/images/Images").read_text()


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
        listed = {line.split()[1] for line in (folder / name).read_text().splitlines()}
        assert listed == {path.name for path in folder.iterdir() if "SUMS" not in path.name}
        assert {STEM + ".qcow2", *ATTESTATIONS} < listed


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
    # A power failure between the signature and the link leaves this.
    (images(archive) / ".current").symlink_to("20261119.0")
    archive.run("publish")
    assert current.readlink().name == "20261121.0"
    assert sorted(path.name for path in images(archive).iterdir()) == ["20261120.0", "20261121.0", "current"]


def test_published_paths_are_never_rewritten(archive: Archive, make: Maker, uploader: Key) -> None:
    archive.take(make.image(uploader))
    assert "never rewritten" in archive.refuse(make.image(uploader, content=qcow2(b"another")))
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
        {"Firmware": "coreboot"},
        {"User": "admin root"},
    ],
    ids=lambda lie: "-".join(f"{field}={value[:12]}" for field, value in lie.items()),
)
def test_refuses_record_that_lies(archive: Archive, make: Maker, uploader: Key, lie: dict[str, str]) -> None:
    assert "error: " in archive.refuse(make.image(uploader, record=lie))


def test_what_a_machine_needs_is_published(archive: Archive, make: Maker, uploader: Key) -> None:
    archive.take(make.image(uploader, record={"Firmware": "bios uefi", "Memory": "512M", "User": "admin"}))
    archive.run("publish")
    (record,) = index.parse((archive.dist / "main/images/Images").read_text())
    assert record.machine == Machine(firmware=("bios", "uefi"), memory=2**29, user="admin")


CHANGES = "Image-Changes:\n add htop\n hostname x\n"


def test_an_official_suite_refuses_an_unofficial_image(archive: Archive, make: Maker, uploader: Key) -> None:
    reason = archive.refuse(make.image(uploader, record={"Official": "no"}, buildinfo_fields=CHANGES))
    (error,) = (line for line in reason.splitlines() if "error: " in line)
    (hint,) = (line for line in reason.splitlines() if "hint: " in line)
    assert "the image is not official (add htop, hostname x), but trixie accepts only official images" in error
    assert "debian-cloud new" in hint
    # An archive made before there were unofficial images refuses it, too.
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
        # debsign signs first the .buildinfo, then the .changes that lists it.
        uploader.clearsign(upload.files[1])
        header = {"Binary": "debian-cloud-config-ec2", "Architecture": "amd64", "Version": SERIAL}
        upload = make.changes(upload.files, uploader, upload.changes.name, header)
    assert "disagree on whether the image is official" in archive.refuse(upload)


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
    assert "disagree on whether the image is official" in archive.refuse(upload)


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
    remove(folder)


def test_refuses_image_for_another_suite(archive: Archive, make: Maker, uploader: Key) -> None:
    archive.refuse(make.image(uploader, suite="sid"))


def test_refuses_surplus_file(archive: Archive, make: Maker, uploader: Key) -> None:
    assert "does not name" in archive.refuse(make.image(uploader, extra="index.html"))
    assert "does not name" in archive.refuse(make.image(uploader, extra="SHA256SUMS"))
    for name in ATTESTATIONS:
        assert f"a file {name} that its record does not name" in archive.refuse(make.image(uploader, extra=name))


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
    # A power failure between reprepro's end and the rename leaves this.
    staging = archive.path / "tmp/staging/trixie"
    whole = archive.path / "tmp/upload"
    staging.mkdir(parents=True)
    whole.mkdir()
    for path in (*upload.files, upload.changes):
        (archive.path / "incoming" / path.name).rename(whole / path.name)
    for path in upload.files[1:]:
        shutil.copy(whole / path.name, staging)
    for name in ("SHA256SUMS", *ATTESTATIONS):
        (staging / name).write_text("half")
    archive.run("accept")
    assert (images(archive) / SERIAL / "SHA256SUMS.gpg").exists()
    assert "half" not in (images(archive) / SERIAL / STATEMENT).read_text()
    assert archive.queue() == []


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
    """A run killed with -9 right after reprepro took the upload, or after the rename, is completed by the next."""
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
    assert archive.run("accept").stdout.startswith("nothing to accept: ")


# Attestations.


def test_what_the_archive_says_of_an_image(archive: Archive, make: Maker, uploader: Key, tmp_path: Path) -> None:
    upload = make.image(uploader)
    archive.take(upload)
    folder = images(archive) / SERIAL
    kept = Buildinfo.parse(upload.files[1].read_text(), "x.buildinfo")
    for name in ("spdx", "cyclonedx"):
        bill = projections.find(name)
        assert (folder / f"{STEM}.{bill.SUFFIX}").read_text() == projections.text(bill.document(kept))

    keyring = tmp_path / "archive.gpg"
    archive.key.gpg("--export", "--output", keyring)
    signed = sign.verified(keyring, folder / STATEMENT, folder / f"{STATEMENT}.gpg")
    stated = provenance.parse(signed.content.decode(), STATEMENT)
    disk = upload.files[0].read_bytes()
    hashes = {"sha256": hashlib.sha256(disk).hexdigest(), "sha512": hashlib.sha512(disk).hexdigest()}
    assert stated == provenance.Statement(provenance.BUILT, {f"{STEM}.qcow2": hashes})
    run = json.loads(signed.content)["predicate"]["runDetails"]
    # The archive signs; the uploader is the builder.
    assert run["builder"]["id"] == f"openpgp4fpr:{uploader.fingerprint}"
    assert uploader.fingerprint not in signed.signers
    (buildinfo,) = run["byproducts"]
    assert buildinfo["name"] == upload.files[1].name
    assert buildinfo["digest"]["sha256"] == hashlib.sha256(upload.files[1].read_bytes()).hexdigest()


def test_refuses_an_upload_of_two_builders(
    archive: Archive, make: Maker, uploader: Key, stranger: Key, gnupg_home: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    both = replace(stranger, home=gnupg_home)
    for key in (uploader, stranger):
        key.gpg("--export-secret-keys", "--output", secret)
        both.gpg("--import", secret)
    archive.run("add-uploader", stranger.public)
    upload = make.image(None)
    signed = upload.changes.with_suffix(".asc")
    users = (word for key in (uploader, stranger) for word in ("--local-user", key.fingerprint))
    both.gpg(*users, "--clearsign", "--output", signed, upload.changes)
    signed.replace(upload.changes)
    assert "the upload is signed by 2 keys" in archive.refuse(upload)


def test_a_stranger_s_signature_on_a_statement_is_none(
    archive: Archive, make: Maker, uploader: Key, tmp_path: Path
) -> None:
    archive.take(make.image(uploader))
    folder, keyring = images(archive) / SERIAL, tmp_path / "archive.gpg"
    archive.key.gpg("--export", "--output", keyring)
    with pytest.raises(Error, match="no valid signature"):
        sign.verified(uploader.public, folder / STATEMENT, folder / f"{STATEMENT}.gpg")
    changed = tmp_path / STATEMENT
    changed.write_text((folder / STATEMENT).read_text() + " ")
    with pytest.raises(Error, match="no valid signature"):
        sign.verified(keyring, changed, folder / f"{STATEMENT}.gpg")


def test_the_index_lists_the_attestations(archive: Archive, make: Maker, uploader: Key) -> None:
    archive.take(make.image(uploader))
    archive.run("publish")
    (record,) = index.parse((archive.dist / "main/images/Images").read_text())
    place = f"images/trixie/ec2/amd64/{SERIAL}"
    lines = (archive.dist / "main/images/Images").read_text().partition("Attestations:\n")[2].splitlines()
    assert [line.split()[2] for line in lines[:4]] == [f"{place}/{name}" for name in ATTESTATIONS]
    assert [f"{STEM}.{found.suffix}" for found in record.attestations] == [*ATTESTATIONS]
    for found in record.attestations:
        content = (archive.public / place / f"{STEM}.{found.suffix}").read_bytes()
        assert (found.size, found.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_what_is_said_of_an_image_is_in_its_record_and_nowhere_else(
    archive: Archive, make: Maker, uploader: Key
) -> None:
    """Publishing reads no file of an image, only its record, so 10,000 images take no longer for their files."""
    archive.take(make.image(uploader))
    record = archive.path / "state/images/trixie"
    (before,) = index.parse(record.read_text())
    assert {f"{STEM}.{found.suffix}" for found in before.attestations} == {*ATTESTATIONS}
    # The record of an image that was accepted before there were attestations.
    record.write_text(index.render([replace(before, attestations=())]))
    for name in ATTESTATIONS:
        (images(archive) / SERIAL / name).unlink()
    archive.run("publish")
    (listed,) = index.parse((archive.dist / "main/images/Images").read_text())
    assert listed == replace(before, attestations=(), status="current")
    assert listed.buildinfo_sha256


@pytest.mark.parametrize(
    ("pattern", "by"),
    [("(?s)^Packages-Sha256:.*", ""), ("^Image-Plan: .*\n", ""), ("(?s).*", "hello\n"), ("(?s)^.*", "Format: 1.0\n")],
)
def test_refuses_an_image_that_nobody_could_prove(
    archive: Archive, make: Maker, uploader: Key, pattern: str, by: str
) -> None:
    upload = make.image(uploader)
    text = upload.files[1].read_text()
    upload.files[1].write_text(re.sub(pattern, by, text, count=1, flags=re.M))
    assert upload.files[1].read_text() != text
    header = {"Binary": "debian-cloud-config-ec2", "Architecture": "amd64", "Version": SERIAL}
    again = make.changes(upload.files, uploader, upload.changes.name, header)
    assert "is not the .buildinfo of an image" in archive.refuse(again)


def test_refuses_a_buildinfo_of_another_disk(archive: Archive, make: Maker, uploader: Key) -> None:
    reason = archive.refuse(make.image(uploader, described=b"another disk"))
    assert f"{STEM}.qcow2 is not the file that the .buildinfo of {STEM} describes" in reason


@pytest.mark.parametrize("lie", [("^Version: .*", "Version: 20261119.0"), ("^Image-Config-Version: .*", "\\g<0>1")])
def test_refuses_a_buildinfo_of_another_image(
    archive: Archive, make: Maker, uploader: Key, lie: tuple[str, str]
) -> None:
    upload = make.image(uploader)
    text = re.sub(*lie, upload.files[1].read_text(), count=1, flags=re.M)
    upload.files[1].write_text(re.sub(SERIAL, "20261119.0", text) if "20261119.0" in text else text)
    header = {"Binary": "debian-cloud-config-ec2", "Architecture": "amd64", "Version": SERIAL}
    again = make.changes(upload.files, uploader, upload.changes.name, header)
    assert f"the record describes {STEM}, but its .buildinfo debian-13-ec2-amd64-" in archive.refuse(again)


# Files that are not images.


def test_refuses_what_is_no_image(archive: Archive, make: Maker, uploader: Key) -> None:
    """One case of each kind; tests/formats/test_formats.py and tests/archive/test_admission.py have all cases."""
    script = b"#!/bin/sh\nrm -rf /\n" + bytes(4096)
    cases: tuple[tuple[bytes, dict[str, str], str], ...] = (
        (b"", {}, "Size of an image record"),
        (b"Q", {}, "is not a qcow2"),
        (script, {}, "is not a qcow2"),
        (qcow2(), {"Virtual-Size": "100000000000000000"}, "Virtual-Size of an image record is not a number of bytes"),
        (qcow2(), {"Virtual-Size": "1"}, f"is a disk of {VIRTUAL_SIZE} bytes, but its record says 1"),
    )
    for content, record, said in cases:
        assert said in archive.refuse(make.image(uploader, content=content, record=record))

    def edited(number: int, change: Callable[[str], str]) -> str:
        """Why an upload is refused after a change to the text of one file."""
        upload = make.image(None)
        text = upload.files[number].read_text()
        upload.files[number].write_text(change(text))
        assert upload.files[number].read_text() != text
        header = {"Binary": "debian-cloud-config-ec2", "Architecture": "amd64", "Version": SERIAL}
        return archive.refuse(make.changes(upload.files, uploader, upload.changes.name, header))

    for number, name in (1, "buildinfo"), (2, "image"):
        assert f"{STEM}.{name} has more than" in edited(number, lambda text: text + "x" * (4 << 20))
    password = "http://me:secret@debian.example/x"
    assert "not a plain address of a mirror" in edited(
        1, lambda text: text.replace("http://debian.example/security", password)
    )


def test_refuses_a_raw_disk(archive: Archive, make: Maker, uploader: Key) -> None:
    disk, buildinfo, record = make.image(None).files
    raw = disk.rename(disk.with_suffix(".raw"))
    for file in (buildinfo, record):
        file.write_text(file.read_text().replace("qcow2", "raw").replace("Sha256:", "Sha256-Blocks:", 1))
    header = {"Binary": "debian-cloud-config-ec2", "Architecture": "amd64", "Version": SERIAL}
    upload = make.changes([raw, buildinfo, record], uploader, f"{STEM}.changes", header)
    assert f"{STEM}.raw is raw, which no archive accepts" in archive.refuse(upload)


@pytest.mark.parametrize("kind", ["nothing", "file"])
def test_an_upload_that_is_no_folder_is_wrong_use(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "upload"
    if kind == "file":
        folder.touch()
    with pytest.raises(Error, match=f"{folder} is not a directory") as refused:
        steps.run(["admit", str(folder), "trixie", "--uploaders", str(tmp_path / "keys")])
    assert refused.value.status == USAGE
