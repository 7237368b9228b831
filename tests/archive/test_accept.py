# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may upload what to which suite, with which signature, and how uploads of an attacker are refused."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests import gnupg
from tests.archive.clients import machine
from tests.archive.conftest import SERIAL, Archive, Key, Maker, Template, Upload, run
from tests.archive.owners import NO_QUESTIONS, exported, key_of
from tests.gnupg import remove

PROPOSED = "trixie-proposed"
CONFIGURATION = "debian-cloud-config-my-hpc"


@pytest.fixture(scope="module")
def shared(short_path: Path, env: dict[str, str], uploader: Key) -> Iterator[Archive]:
    """An archive of two suites for all tests of this module: what one test adds does not affect the others."""
    path = short_path / "uploads"
    suites = ("--suite", "trixie", "--suite", PROPOSED)
    run(["debian-cloud-archive", "init", path, *suites, "--uploader", uploader.public], env)
    (path / "conf/closures").unlink()
    yield Archive(path, env)
    remove(path)


@pytest.fixture
def rules(shared: Archive) -> Iterator[Path]:
    """conf/uploaders, restored after the test."""
    path = shared.path / "conf/uploaders"
    before = path.read_text()
    yield path
    path.write_text(before)


def import_by_hand(archive: Archive, key: Key, rights: str = "all *") -> None:
    """Give rights to a key that add-uploader would refuse."""
    run(["gpg", "--homedir", archive.path / "uploaders", "--batch", "--quiet", "--import", key.public], archive.env)
    with (archive.path / "conf/uploaders").open("a") as file:
        file.write(f"{key.fingerprint} {rights}\n")


def resigned(upload: Upload, key: Key, *options: str, change: tuple[str, str] = ("", "")) -> Upload:
    """Change the upload's .changes by re.sub, and sign it with the key and these options of gpg."""
    text = upload.changes.read_text()
    if text.startswith("-----BEGIN"):
        text = text.partition("\n\n")[2].partition("-----BEGIN PGP SIGNATURE-----")[0]
    if change[0]:
        text, count = re.subn(*change, text, flags=re.MULTILINE)
        assert count
    # Written as bytes, because Python would repair a manipulated line end.
    upload.changes.write_bytes(text.encode())
    signed = upload.changes.with_suffix(".asc")
    key.gpg(*options, "--clearsign", "--output", signed, upload.changes)
    signed.replace(upload.changes)
    return upload


# Keys and signatures.


@pytest.mark.parametrize("digest", ["SHA1", "MD5", "RIPEMD160"])
def test_refuses_a_signature_over_a_weak_digest(shared: Archive, make: Maker, uploader: Key, digest: str) -> None:
    upload = resigned(make.deb(uploader), uploader, "--digest-algo", digest, "--allow-weak-digest-algos")
    reason = shared.refuse(upload)
    assert "error: its signature uses a weak digest" in reason
    assert reason.startswith(f"uploader: {uploader.fingerprint} uploader <uploader@example.org>\n")


def test_refuses_weak_keys(shared: Archive, make: Maker, short_path: Path, rules: Path) -> None:
    before = rules.read_text()
    weak = key_of(short_path, "weak", "rsa1024", "sign", "never")
    done = shared.run("add-uploader", weak.public, check=False)
    assert done.returncode == 1
    assert f"error: {weak.fingerprint} is weak: it has less than 2048 bits" in done.stderr
    assert rules.read_text() == before
    # An entry by hand does not make the key strong.
    import_by_hand(shared, weak)
    assert f"error: it is signed by a weak key, {weak.fingerprint}" in shared.refuse(make.deb(weak))
    assert weak.fingerprint not in (shared.path / "conf/uploaders.reprepro").read_text()
    assert "weak key" in shared.refuse(make.image(weak))


def test_a_strong_rsa_key_may_upload(shared: Archive, make: Maker, short_path: Path, rules: Path) -> None:
    strong = key_of(short_path, "strong", "rsa2048", "sign", "never")
    shared.run("add-uploader", strong.public)
    upload = make.deb(None, "2.0", package=CONFIGURATION + "-rsa", source=CONFIGURATION + "-rsa")
    shared.take(resigned(upload, strong, "--emit-version"))
    assert f"{CONFIGURATION}-rsa 2.0" in shared.packages()


@pytest.mark.thorough
def test_a_key_that_expires_takes_nothing_back(archive: Archive, make: Maker, short_path: Path) -> None:
    key = key_of(short_path, "expiring", "ed25519", "sign", "never")
    archive.run("add-uploader", key.public)
    archive.take(make.deb(key, "1.0"))
    archive.take(make.image(key))
    archive.run("publish")
    dist = archive.dist / "main"
    published = (dist / "binary-amd64/Packages").read_text(), (dist / "images/Images").read_text()
    waiting = make.deb(key, "1.1"), make.image(key, "20261121.0")

    key.gpg(*NO_QUESTIONS, "--quick-set-expire", key.fingerprint, "seconds=1")
    exported(key)
    archive.run("add-uploader", key.public)
    time.sleep(2)
    today = time.strftime("%Y-%m-%d", time.gmtime())
    for upload in waiting:
        assert f"error: it is signed by a key that expired on {today}, {key.fingerprint}" in archive.refuse(upload)
    assert "has expired" in archive.run("add-uploader", key.public, check=False).stderr
    archive.run("publish")
    assert ((dist / "binary-amd64/Packages").read_text(), (dist / "images/Images").read_text()) == published

    # After its expiry is extended, earlier signatures are good again, and the key has one line of rights.
    key.gpg(*NO_QUESTIONS, "--quick-set-expire", key.fingerprint, "1y")
    exported(key)
    archive.run("add-uploader", key.public)
    assert (archive.path / "conf/uploaders").read_text().count(key.fingerprint) == 1
    for upload in waiting:
        archive.take(upload)

    # A revoked key is refused like an expired one, and an older export of it does not bring it back.
    good = key.public.read_text()
    revocation = short_path / "expiring.rev"
    made = key.home / f"openpgp-revocs.d/{key.fingerprint}.rev"
    revocation.write_text(made.read_text().replace(":-----BEGIN", "-----BEGIN"))
    key.gpg("--import", revocation)
    key.gpg("--armor", "--export", "--output", key.public)
    done = archive.run("add-uploader", key.public, check=False)
    assert (done.returncode, f"error: {key.fingerprint} is revoked" in done.stderr) == (1, True)
    key.public.write_text(good)
    assert "is revoked" in archive.run("add-uploader", key.public, check=False).stderr
    for upload in (make.deb(None, "1.2"), make.image(None, "20261121.1")):
        # gpg refuses to sign with it.
        other = signed_before(short_path, good, key, upload)
        assert f"error: it is signed by a revoked key, {key.fingerprint}" in archive.refuse(other)
    archive.run("publish")
    assert "Version: 1.1\n" in (dist / "binary-amd64/Packages").read_text()
    assert "20261121.0" in (dist / "images/Images").read_text()


def signed_before(short_path: Path, public: str, key: Key, upload: Upload) -> Upload:
    """Sign the upload as someone who has the secret key and does not know of its revocation."""
    with gnupg.temporary_home() as home:
        thief = replace(key, home=home)
        shutil.copytree(key.home / "private-keys-v1.d", thief.home / "private-keys-v1.d")
        (thief.home / "public").write_text(public)
        thief.gpg("--import", thief.home / "public")
        thief.clearsign(upload.changes)
    return upload


def test_refuses_a_key_that_expired_before(shared: Archive, make: Maker, short_path: Path, rules: Path) -> None:
    old = key_of(short_path, "old", "--faked-system-time", "20200101T000000", "ed25519", "sign", "2020-02-01")
    done = shared.run("add-uploader", old.public, check=False)
    assert (done.returncode, f"error: {old.fingerprint} has expired" in done.stderr) == (1, True)
    import_by_hand(shared, old)
    # It was signed while the key was good, but today nothing proves that.
    upload = resigned(make.deb(None), old, "--faked-system-time", "20200102T000000")
    assert "error: it is signed by a key that expired on 2020-02-01" in shared.refuse(upload)


# conf/uploaders.


def test_each_key_uploads_what_its_lines_say(shared: Archive, make: Maker, stranger: Key, rules: Path) -> None:
    line = stranger.fingerprint
    own = {"package": CONFIGURATION, "source": CONFIGURATION}
    shared.run("add-uploader", stranger.public, "--may", "configurations", "--suite", PROPOSED)
    assert re.search(
        rf"^{line}  configurations  {PROPOSED}  # stranger <stranger@example.org>$", rules.read_text(), re.M
    )
    for upload in (make.deb(stranger), make.image(stranger), make.deb(stranger, **own)):
        reason = shared.refuse(upload)
        assert f"error: {line} may not upload this to trixie\n" in reason
        assert reason.startswith(f"uploader: {line} stranger <")
        assert f"explains each word: configurations {PROPOSED}\n" in reason
    assert "may not" in shared.refuse(make.deb(stranger, suite=PROPOSED))
    shared.take(make.deb(stranger, **own, suite=PROPOSED))

    # A second right is a second line; a repeated one is not added again.
    for _ in range(2):
        shared.run("add-uploader", stranger.public, "--may", "images", "--suite", "*")
    assert rules.read_text().count(line) == 2
    shared.take(make.image(stranger, "20261101.0"))
    assert "may not" in shared.refuse(make.deb(stranger))

    rules.write_text(re.sub(f"{line} .*", f"{line.lower()}\tpackages   configurations trixie #", rules.read_text()))
    shared.take(make.deb(stranger, "0.7"))
    assert "may not" in shared.refuse(make.image(stranger, "20261101.1"))
    # Without a line, the key has no right.
    rules.write_text(re.sub(f"{line}.*\n", "", rules.read_text(), flags=re.I))
    assert f"error: it is not signed by an uploader: {line} may no longer upload" in shared.refuse(
        make.deb(stranger, "0.8")
    )


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{key}", "'' is not packages, configurations, images or all"),
        ("{key} trixie", "'trixie' is not packages, configurations, images or all"),
        ("{key} package trixie", "'package' is not packages, configurations, images or all"),
        ("{key} packages", "it names no suite"),
        ("{key} packages sid", "'sid' is not a suite of this archive"),
        ("{key} packages trixie images", "'images' is not a suite of this archive"),
        ("{short} all *", "'{short}' is not a key"),
        ("0x{key} all *", "'0x{key}' is not a key"),
        ("allow * by any key", "'allow' is not a key"),
        ("{other} all *", "the key {other} is unknown"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_accepted(
    shared: Archive, make: Maker, uploader: Key, rules: Path, line: str, sentence: str
) -> None:
    words = {"key": uploader.fingerprint, "short": uploader.fingerprint[-16:], "other": "F" * 40}
    before, number = shared.snapshot(), rules.read_text().count("\n") + 2
    rules.write_text(f"{rules.read_text()}\n{line.format(**words)}\n")
    upload = make.deb(uploader, "3.0")
    shared.put(upload)
    try:
        done = shared.run("accept", check=False)
        assert (done.returncode, done.stdout) == (1, "")
        first, hint = done.stderr.splitlines()
        assert first == f"error: conf/uploaders, line {number}: {sentence.format(**words)}"
        assert hint.startswith("hint: ")
        assert shared.snapshot() == before
        assert len(shared.queue()) == len(upload.files) + 1
    finally:
        for name in shared.queue():
            (shared.path / "incoming" / name).unlink()


def test_add_uploader_refuses_what_it_does_not_know(shared: Archive, uploader: Key, rules: Path) -> None:
    before = rules.read_text()
    for options, word in (
        (("--may", "everything"), "'everything' is not packages, configurations, images or all"),
        (("--suite", "sid"), "'sid' is not a suite of this archive"),
        (("--suite",), "--suite needs a value"),
        (("--frob",), "unknown option --frob"),
        (("second",), "takes DIR and KEYFILE"),
    ):
        done = shared.run("add-uploader", uploader.public, *options, check=False)
        assert (done.returncode, word in done.stderr, "hint: " in done.stderr) == (2, True, True), options
    assert rules.read_text() == before


# Attacks.


@pytest.mark.parametrize("name", ["../x.deb", "/etc/passwd", "a/../../x.deb", ".x.deb", "a\x1b[2Jb.deb"])
def test_refuses_a_name_that_leads_elsewhere(shared: Archive, make: Maker, uploader: Key, name: str) -> None:
    upload = make.deb(uploader, "4.0")
    outside = shared.path / "x.deb"
    shutil.copy(upload.files[0], outside)
    try:
        # The .deb is left out, because the .changes no longer lists it.
        reason = shared.refuse(
            Upload(resigned(upload, uploader, change=(r"\S+\.deb$", name)).changes, upload.files[1:])
        )
        assert "error: " in reason
        assert "\x1b" not in reason + (shared.path / "log/accept.log").read_text()
        assert outside.read_bytes() == upload.files[0].read_bytes()
    finally:
        outside.unlink()


KINDS = ["fifo", "link", "dangling link", "folder"] + ["device"] * (os.geteuid() == 0)


def put_instead(path: Path, kind: str, target: Path) -> None:
    """Put something other than a regular file there."""
    path.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero never ends
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(target if kind == "link" else "/nonexistent")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("which", ["file", "changes"])
def test_refuses_what_is_no_regular_file(shared: Archive, make: Maker, uploader: Key, kind: str, which: str) -> None:
    upload, other = make.deb(uploader, "4.0"), make.deb(uploader, "0.1", package="debian-cloud-config-old")
    shared.put(upload)
    queued = shared.path / "incoming" / (upload.changes.name if which == "changes" else upload.files[0].name)
    secret = make.path / "secret"
    secret.write_text("secret")
    put_instead(queued, kind, secret)
    before = shared.snapshot()
    # It does not block another upload.
    other.changes.rename(shared.path / "incoming/zzz.changes")
    done = shared.run("accept", check=False)
    assert done.returncode == 1
    assert f"refused: {upload.changes.name}: {queued.name} is not a regular file (kept: rejected/" in done.stdout
    assert "refused: zzz.changes: " in done.stdout
    assert shared.snapshot() == before
    assert secret.read_text() == "secret"
    kept = shared.path / re.findall(r"kept: (\S+)\)", done.stdout)[0]
    assert "\nerror: " in f"\n{(kept / 'reason').read_text()}"
    for name in shared.queue():
        (shared.path / "incoming" / name).unlink()


def test_an_upload_does_not_write_elsewhere_by_its_reason(shared: Archive, make: Maker, uploader: Key) -> None:
    upload = resigned(make.deb(uploader, "4.0"), uploader, change=(r"\S+\.buildinfo$", "reason"))
    target = make.path / "target"
    target.write_text("untouched")
    shared.put(Upload(upload.changes, upload.files[:1]))
    (shared.path / "incoming/reason").symlink_to(target)
    assert shared.run("accept", check=False).returncode == 1
    assert target.read_text() == "untouched"
    (shared.path / "incoming/reason").unlink()


def test_an_upload_does_not_take_another_away(shared: Archive, make: Maker, uploader: Key) -> None:
    name = CONFIGURATION + "-victim"
    upload = make.deb(uploader, "1.0", package=name, source=name)
    shared.put(upload)
    thief = shared.path / "incoming/a.changes"
    files = (*upload.files, upload.changes)
    thief.write_text("Files:\n" + "".join(f" 0 0 misc optional {path.name}\n" for path in files))
    assert "refused: a.changes" in shared.run("accept", check=False).stdout
    assert f"{name} 1.0" in shared.packages()


def test_refuses_a_surplus_file_in_an_upload_of_packages(shared: Archive, make: Maker, uploader: Key) -> None:
    upload = make.deb(None, "4.0")
    extra = upload.changes.parent / "debian-cloud_4.0.html"
    extra.write_text("<script>")
    fields = {"Binary": "debian-cloud-config-demo", "Architecture": "all", "Version": "4.0"}
    more = make.changes([*upload.files, extra], uploader, upload.changes.name, fields)
    assert "error: " in shared.refuse(more)


def test_refuses_ten_gigabytes_that_are_not_there(shared: Archive, make: Maker, uploader: Key) -> None:
    begun = time.monotonic()
    upload = resigned(
        make.deb(uploader, "4.0"), uploader, change=(r"[0-9]+( misc optional)? (\S+\.deb)$", r"10737418240\1 \2")
    )
    size = upload.files[0].stat().st_size
    assert f"{upload.files[0].name} has {size} bytes, which does not match the 10737418240" in shared.refuse(upload)
    record = make.image(uploader, "20261102.0", record={"Size": "10737418240"})
    assert "is not the file that its record describes" in shared.refuse(record)
    # A file that is longer than it should be is not read either.
    upload = make.deb(uploader, "4.0")
    shared.put(upload)
    with (shared.path / "incoming" / upload.files[0].name).open("r+b") as file:
        file.truncate(10 << 30)
    done = shared.run("accept", check=False)
    assert "has 10737418240 bytes, which does not match" in done.stdout
    assert time.monotonic() - begun < 60
    next((shared.path / re.findall(r"kept: (\S+)\)", done.stdout)[0]).glob("*.deb")).unlink()


def package(make: Maker, key: Key, control: bytes, version: str = "4.0") -> Upload:
    """Make an upload of a .deb with this control file, which no tool of Debian would make."""
    folder = make.folder()
    deb = folder / f"debian-cloud-config-demo_{version}_all.deb"
    with tarfile.open(folder / "control.tar", "w") as tar:
        member = tarfile.TarInfo("./control")
        member.size = len(control)
        tar.addfile(member, io.BytesIO(control))
    tarfile.open(folder / "data.tar", "w").close()
    (folder / "debian-binary").write_text("2.0\n")
    run(["ar", "rcD", deb, *(folder / name for name in ("debian-binary", "control.tar", "data.tar"))], make.env)
    fields = {"Binary": "debian-cloud-config-demo", "Architecture": "all", "Version": version}
    return make.changes([deb], key, f"debian-cloud_{version}_all.changes", fields)


CONTROL = (
    b"Package: debian-cloud-config-demo\nSource: debian-cloud\nVersion: 4.0\nArchitecture: all\n"
    b"Maintainer: Test <test@example.org>\nSection: misc\nPriority: optional\nDescription: test"
)


@pytest.mark.parametrize(
    "trick",
    [
        b"\n\nPackage: openssh-server\nVersion: 9",
        b"\n \nPackage: openssh-server\nVersion: 9",
        b"\n\t \n more",
        b"\nPackage: openssh-server",
        b"\nversion: 9",
        b"\n\r\nPackage: openssh-server\nVersion: 9",
        b"\n more\rPackage: openssh-server",
        b"\x0bPackage: openssh-server",
        b"\x00",
        b"\nEssential: yes",
        b"\nProvides: debian-archive-keyring (= 2099)",
    ],
)
def test_refuses_another_paragraph_in_a_package(shared: Archive, make: Maker, uploader: Key, trick: bytes) -> None:
    assert "error: " in shared.refuse(package(make, uploader, CONTROL + trick + b"\n"))


def test_a_package_does_not_say_where_it_lies(archive: Archive, make: Maker, uploader: Key) -> None:
    trick = b"\nFilename: ../../openssh-server\nSize: 1\nSHA256: 00\n"
    archive.take(package(make, uploader, CONTROL + trick))
    archive.run("publish")
    index = (archive.dist / "main/binary-amd64/Packages").read_text()
    assert re.findall("^Package: (.*)$", index, re.M) == ["debian-cloud-archive-keyring", "debian-cloud-config-demo"]
    assert "Size: 1\n" not in index
    assert "openssh-server" not in index
    assert "../" not in index
    assert index.count("SHA256:") == 2


@pytest.mark.parametrize(
    "change",
    [
        (r"^Urgency: medium$", "Urgency: medium\n \nDistribution: trixie-proposed"),
        (r"^Urgency: medium$", "Urgency: medium\rDistribution: trixie-proposed"),
        (r"^Urgency: medium$", "Urgency: medium\n\nDistribution: trixie-proposed\nFormat: 1.8"),
        (r"^Distribution: trixie$", "Distribution: trixie\n trixie-proposed"),
        (r"^Distribution: trixie$", "Distribution: trixie trixie-proposed"),
        (r"^Distribution: trixie$", "Distribution: ../trixie"),
        (r"^Source: debian-cloud$", "Source: debian-cloud\nSource: other"),
        (r"^Version: .*$", "Version: 4.0\n 9"),
        (r"^Version: .*$", "Version: ../4.0"),
    ],
)
def test_refuses_a_changes_of_two_meanings(
    shared: Archive, make: Maker, uploader: Key, change: tuple[str, str]
) -> None:
    assert "error: " in shared.refuse(resigned(make.deb(uploader, "4.0"), uploader, change=change))


@pytest.mark.parametrize(
    "value",
    ["x\n \nImage: debian-cloud-config-ec2", "x\n\nImage: debian-cloud-config-ec2", "x\rSuite: sid", "x\n\t\n y"],
)
def test_refuses_another_paragraph_in_a_record(shared: Archive, make: Maker, uploader: Key, value: str) -> None:
    upload = make.image(uploader, "20261103.0")
    record = upload.files[2]
    record.write_bytes(record.read_bytes().replace(b"qcow2\nConfig", b"qcow2\nCVEs: " + value.encode() + b"\nConfig"))
    header = {"Binary": "debian-cloud-config-ec2", "Architecture": "amd64", "Version": "20261103.0"}
    assert "error: " in shared.refuse(make.changes(upload.files, uploader, upload.changes.name, header))


@pytest.mark.parametrize(
    "content", [b"", b"no package", b"!<arch>\n", b"!<arch>\ndebian-binary   0 0 0 0 99999999999`\n"]
)
def test_refuses_a_package_that_is_none(shared: Archive, make: Maker, uploader: Key, content: bytes) -> None:
    upload = make.deb(None, "4.0")
    upload.files[0].write_bytes(content)
    fields = {"Binary": "debian-cloud-config-demo", "Architecture": "all", "Version": "4.0"}
    assert "error: " in shared.refuse(make.changes(upload.files, uploader, upload.changes.name, fields))


def test_a_withdrawn_image_does_not_come_back(archive: Archive, make: Maker, uploader: Key) -> None:
    upload = make.image(uploader)
    archive.take(upload)
    archive.run("publish")
    archive.run("withdraw", f"trixie/ec2/amd64/{SERIAL}", "--reason", "of no use")
    assert "never rewritten" in archive.refuse(upload)
    # It is also refused after its files are gone.
    shutil.rmtree(archive.public / f"images/trixie/ec2/amd64/{SERIAL}")
    reason = archive.refuse(upload)
    assert f"the archive has or had images/trixie/ec2/amd64/{SERIAL}, and no path is used twice" in reason
    assert reason.startswith("uploader: ")
    assert not (archive.public / f"images/trixie/ec2/amd64/{SERIAL}").exists()


def test_an_old_upload_replayed_changes_nothing(shared: Archive, make: Maker, uploader: Key) -> None:
    name = CONFIGURATION + "-replay"
    uploads = [make.deb(uploader, version, package=name, source=name) for version in ("1.0", "1.1")]
    for upload in uploads:
        shared.take(upload)
    before = shared.snapshot()
    reason = shared.refuse(uploads[0])
    assert "error: " in reason
    shared.take(uploads[1])
    assert shared.snapshot() == before


def test_of_two_at_once_one_takes_all(shared: Archive, make: Maker, uploader: Key) -> None:
    names = [f"{CONFIGURATION}-{number}" for number in range(3)]
    for number, name in enumerate(names):
        shared.put(make.deb(uploader, f"1.{number}", package=name, source=name))
    command = ["debian-cloud-archive", "accept", str(shared.path)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    both = [subprocess.Popen(command, env=shared.env, text=True, **pipes) for _ in range(2)]  # type: ignore[call-overload]
    said = [process.communicate(timeout=120) for process in both]
    assert sum(out.count("accepted: ") for out, _ in said) == 3
    codes = sorted(process.returncode for process in both)
    # Both succeed if the first had ended before the second began.
    assert codes == [0, 0] or (codes == [0, 1] and any("is using" in err for _, err in said))
    assert all(f"{name} 1." in shared.packages() for name in names)
    assert shared.queue() == []


# Decisions.


def test_a_reason_can_be_read_by_whoever_uploaded(shared: Archive, make: Maker, uploader: Key) -> None:
    upload = make.deb(uploader, "4.0")
    upload.files[0].unlink()
    umask = os.umask(0o077)
    try:
        reason = shared.refuse(upload)
    finally:
        os.umask(umask)
    folder = max(
        (shared.path / "rejected").glob(f"{upload.changes.name}.*"), key=lambda path: path.stat().st_mtime_ns
    )
    assert folder.stat().st_mode & 0o777 == 0o755
    assert (folder / "reason").stat().st_mode & 0o777 == 0o644
    owner, error, hint, *_ = reason.splitlines()
    assert owner == f"uploader: {uploader.fingerprint} uploader <uploader@example.org>"
    assert re.match("error: .*not found", error)
    assert hint == "hint: upload every file that the .changes lists"


def test_the_journal_is_told_what_matters(shared: Archive, make: Maker, uploader: Key) -> None:
    name = CONFIGURATION + "-journal"
    shared.put(make.deb(uploader, package=name, source=name))
    shared.put(make.deb(None, "4.0"))
    read, write = os.pipe()
    stream = f"{os.fstat(write).st_dev}:{os.fstat(write).st_ino}"
    command = ["debian-cloud-archive", "accept", str(shared.path)]
    with subprocess.Popen(command, env={**shared.env, "JOURNAL_STREAM": stream}, stdout=write) as process:
        os.close(write)
        with os.fdopen(read, encoding="utf-8") as pipe:
            lines = sorted(pipe.read().splitlines())
    assert process.returncode == 1
    assert [line.partition(":")[0] for line in lines] == ["<4>refused", "accepted"]
    log = (shared.path / "log/accept.log").read_text().splitlines()[-2:]
    assert sorted(re.sub("^[0-9TZ:-]+ ", "", line) for line in log) == sorted(
        line.removeprefix("<4>") for line in lines
    )
    # A stream other than the journal's gets plain lines, although the variable is inherited.
    shared.put(make.deb(None, "4.0"))
    done = run(command, {**shared.env, "JOURNAL_STREAM": stream}, check=False)
    assert done.stdout.startswith("refused: ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_refuses_what_cannot_be_read(shared: Archive, make: Maker, uploader: Key) -> None:
    for which in (0, -1):
        upload = make.deb(uploader, "4.0")
        shared.put(upload)
        name = (*upload.files, upload.changes)[which].name
        (shared.path / "incoming" / name).chmod(0)
        done = shared.run("accept", check=False)
        wanted = rf"{re.escape(name)} cannot be read(: Permission denied)? \(kept: "
        assert re.search(wanted, done.stdout), done.stdout
        for left in shared.queue():
            (shared.path / "incoming" / left).unlink()


def test_an_upload_stays_when_there_is_no_space_left(
    archive: Archive, make: Maker, uploader: Key, tmp_path: Path
) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "reprepro").write_text(
        "#!/bin/sh\ncase $* in *processincoming*) ;; *) exit 0 ;; esac\n"
        "echo 'Error 28 writing x.deb: No space left on device'\nexit 255\n"
    )
    (full / "reprepro").chmod(0o755)
    upload = make.deb(uploader)
    archive.put(upload)
    command = ["debian-cloud-archive", "accept", str(archive.path)]
    done = run(command, {**archive.env, "PATH": f"{full}:{archive.env['PATH']}"}, check=False)
    assert done.returncode == 1
    assert "error: there is no space left for " in done.stderr
    assert list((archive.path / "rejected").iterdir()) == []
    archive.run("accept")
    assert "debian-cloud-config-demo 1.0" in archive.packages()


def test_what_a_killed_accept_left_in_the_pool_is_in_nobodys_way(
    archive: Archive, make: Maker, uploader: Key, tmp_path: Path
) -> None:
    """An upload is accepted although a run killed before its commit left other or damaged files in the pool."""
    shims = tmp_path / "shims"
    shims.mkdir()
    (shims / "reprepro").write_text(
        '#!/bin/sh\n/usr/bin/reprepro "$@" || exit\ncase "$*" in *processincoming*) kill -9 0 ;; esac\n'
    )
    (shims / "reprepro").chmod(0o755)
    command = ["debian-cloud-archive", "accept", str(archive.path)]
    env = {**archive.env, "PATH": f"{shims}:{archive.env['PATH']}"}
    for version, content in (("1.0", "half"), ("1.1", "other")):
        upload = make.deb(uploader, version)
        archive.put(upload)
        killed = subprocess.run(
            command, env=env, start_new_session=True, check=False, capture_output=True, timeout=60
        )
        assert killed.returncode == -signal.SIGKILL
        (pooled,) = archive.public.glob(f"pool/main/d/debian-cloud/*_{version}_all.deb")
        if content == "half":
            pooled.write_bytes(pooled.read_bytes()[:100])
        else:
            # The maintainer uploads something else instead.
            for path in (*upload.files, upload.changes):
                next((archive.path / "tmp/upload").glob(path.name)).unlink()
            upload = make.deb(uploader, version, content=content)
            archive.put(upload)
        done = archive.run("accept")
        assert f"accepted: {upload.changes.name}: into " in done.stdout
        assert pooled.read_bytes() == upload.files[0].read_bytes()
    archive.run("publish")
    digest = hashlib.sha256(pooled.read_bytes()).hexdigest()
    assert f"SHA256: {digest}\n" in (archive.dist / "main/binary-amd64/Packages").read_text()


# Suites.


def versions(archive: Archive, suite: str) -> dict[str, str]:
    """Package -> version in a suite, published or not, without the keyring package."""
    listing: list[str | Path] = [
        "reprepro",
        "--basedir",
        archive.path,
        "--list-format",
        "${package} ${version}\\n",
        "list",
        suite,
    ]
    words = (line.split() for line in run(listing, archive.env).stdout.splitlines())
    return {package: version for package, version in words if package != "debian-cloud-archive-keyring"}


DEMO = "debian-cloud-config-demo"
WAY = (PROPOSED, "trixie")
NAMED = ("trixie", PROPOSED, "testing", "experimental")


@pytest.fixture(scope="module")
def suites_template(
    short_path: Path, env: dict[str, str], uploader: Key, tmp_path_factory: pytest.TempPathFactory
) -> Template:
    options = [word for suite in NAMED for word in ("--suite", suite)]
    template = Template.begun(short_path, "suites", env, uploader, *options)
    archive, make = Archive(template.path, env), Maker(tmp_path_factory.mktemp("uploads"), env)
    archive.take(make.deb(uploader, "1.0", suite=PROPOSED))
    archive.take(make.deb(uploader, "1.0.1", package="debian-cloud-config-more", suite=PROPOSED))
    archive.take(make.deb(uploader, "1.0", package=CONFIGURATION, source=CONFIGURATION, suite=PROPOSED))
    archive.take(make.image(uploader))
    template.keep()
    return template


@pytest.fixture
def suites(suites_template: Template, env: dict[str, str]) -> Iterator[Archive]:
    """An archive of several suites: trixie-proposed has packages of two sources, and trixie has an image."""
    with suites_template.copied():
        yield Archive(suites_template.path, env)


def fails(archive: Archive, verb: str, *words: str, status: int = 1) -> str:
    """The message of a verb that fails and changes nothing."""
    before = {suite: versions(archive, suite) for suite in NAMED}
    done = archive.run(verb, *words, check=False)
    assert (done.returncode, "hint: " in done.stderr) == (status, True)
    assert {suite: versions(archive, suite) for suite in NAMED} == before
    return done.stderr


def test_apt_takes_from_a_suite_what_debian_lets_it(suites: Archive) -> None:
    """A proposed suite is as Debian's backports: apt installs nothing from it, but upgrades what came from it."""
    for suite, fields in (("trixie", []), ("testing", []), ("experimental", ["NotAutomatic"])):
        release = (suites.public / f"dists/{suite}/Release").read_text()
        assert f"Suite: {suite}\nCodename: {suite}\n" in release
        assert re.findall("^(NotAutomatic|ButAutomaticUpgrades): yes$", release, re.M) == fields
    release = (suites.public / f"dists/{PROPOSED}/Release").read_text()
    assert f"Suite: {PROPOSED}\nCodename: {PROPOSED}\n" in release
    assert "NotAutomatic: yes\nButAutomaticUpgrades: yes\n" in release
    assert "Description: Packages and disk images for clouds, to be tried before they go to trixie\n" in release


def test_a_source_goes_from_suite_to_suite_without_an_upload(suites: Archive) -> None:
    done = suites.run("copy", *WAY, "debian-cloud")
    assert done.stdout.splitlines() == [
        f"copied: debian-cloud 1.0.1: {PROPOSED} -> trixie, packages: 2",
        f"to publish: debian-cloud-archive publish {suites.path}",
    ]
    assert versions(suites, "trixie") == {DEMO: "1.0", "debian-cloud-config-more": "1.0.1"}
    assert DEMO not in (suites.dist / "main/binary-amd64/Packages").read_text()
    assert f"copied: debian-cloud 1.0.1: {PROPOSED} -> trixie" in (suites.path / "log/accept.log").read_text()
    assert suites.run("copy", *WAY, "debian-cloud").stdout == "unchanged: debian-cloud 1.0.1 is in trixie\n"


def test_what_is_promoted_stays_where_it_was_and_nothing_goes_back(
    suites: Archive, make: Maker, uploader: Key
) -> None:
    """A promoted package stays in its suite, for the machines that follow that, and no suite goes back a version."""
    suites.run("copy", *WAY, "debian-cloud")
    suites.take(make.deb(uploader, "1.1", suite=PROPOSED))
    assert suites.run("promote", *WAY).stdout.count("copied: ") == 2
    newest = {DEMO: "1.1", "debian-cloud-config-more": "1.0.1", CONFIGURATION: "1.0"}
    assert versions(suites, "trixie") == versions(suites, PROPOSED) == newest
    assert suites.run("promote", *WAY).stdout == f"nothing in {PROPOSED} is newer than in trixie\n"
    suites.run("publish")
    assert "Version: 1.1\n" in (suites.dist / "main/binary-amd64/Packages").read_text()

    suites.take(make.deb(uploader, "2.0"))
    suites.take(make.deb(uploader, "1.1", package=CONFIGURATION, source=CONFIGURATION, suite=PROPOSED))
    older = f"error: trixie has debian-cloud 2.0, {PROPOSED} has the older 1.1\n"
    for words in (
        ("copy", *WAY, "debian-cloud"),
        ("promote", *WAY, "debian-cloud"),
        ("copy", *WAY, CONFIGURATION, "debian-cloud"),
    ):
        assert older in fails(suites, *words)
    done = suites.run("promote", *WAY)
    assert f"skipped: debian-cloud: trixie has 2.0, {PROPOSED} has the older 1.1\n" in done.stdout
    assert f"copied: {CONFIGURATION} 1.1: " in done.stdout
    assert versions(suites, "trixie") == {**newest, DEMO: "2.0", CONFIGURATION: "1.1"}


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("copy", "sid", "trixie", CONFIGURATION), 2, "the archive has no suite 'sid'"),
        (("promote", "trixie", "sid"), 2, "the archive has no suite 'sid'"),
        (("copy", "trixie", "trixie", CONFIGURATION), 2, "FROM and TO are both trixie"),
        (("promote", "trixie", "trixie"), 2, "FROM and TO are both trixie"),
        (("copy", *WAY), 2, "takes DIR, FROM, TO"),
        (("promote", PROPOSED), 2, "takes DIR, FROM"),
        (("copy", *WAY, "nonsense"), 1, "has no source package 'nonsense'"),
        (("promote", *WAY, "--", "-x"), 1, "has no source package '-x'"),
        (("copy", *WAY, DEMO), 1, "is a binary package of the source package debian-cloud"),
        (("copy", *WAY, "debian-cloud-archive-keyring"), 1, "each suite has its own keyring package"),
        (("copy", "trixie", "testing", f"debian-13-ec2-amd64-{SERIAL}"), 1, "an image belongs to one suite"),
    ],
)
def test_what_cannot_go_stays(suites: Archive, words: tuple[str, ...], status: int, said: str) -> None:
    text = fails(suites, *words, status=status)
    assert said in text
    assert "image" not in said or "hint: build it for testing" in text


@pytest.mark.parametrize("suite", ["images", "all", "Trixie", "-x", "../x"])
def test_init_refuses_a_suite_of_that_name(short_path: Path, env: dict[str, str], suite: str) -> None:
    done = run(["debian-cloud-archive", "init", short_path / "x", "--suite", suite], env, check=False)
    assert (done.returncode, suite in done.stderr) == (2, True)
    assert not (short_path / "x").exists()


def test_a_machine_takes_what_is_proposed_only_when_told(
    shared: Archive, make: Maker, uploader: Key, tmp_path: Path, env: dict[str, str]
) -> None:
    name = CONFIGURATION + "-pins"
    shared.take(make.deb(uploader, "1.0", package=name, source=name))
    shared.take(make.deb(uploader, "1.1", package=name, source=name, suite=PROPOSED))
    shared.run("publish")
    apt = machine(tmp_path / "machine", env)
    apt.installs(shared.public / "debian-cloud-archive-keyring_trixie.deb")
    sources = apt.root / "etc/apt/sources.list.d/debian-cloud.sources"
    assert "Suites: trixie\n" in sources.read_text()
    sources.write_text(sources.read_text().replace("Suites: trixie\n", f"Suites: trixie {PROPOSED}\n"))
    assert apt.get("update").returncode == 0
    assert apt.candidate(name) == "1.0"
    # A machine that installed a version from there gets the next one, too.
    (apt.root / "var/lib/dpkg/status").write_text(
        f"Package: {name}\nVersion: 1.0.1\nArchitecture: all\nMaintainer: x\nDescription: x\n"
        "Status: install ok installed\n\n"
    )
    assert apt.candidate(name) == "1.1"
