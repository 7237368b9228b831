# SPDX-License-Identifier: GPL-3.0-or-later
"""debian-cloud-mirror does what an operator expects, with a real rsync daemon and a real nginx."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from debian_cloud.mirror.__main__ import checker, parser
from debian_cloud.text import openpgp
from tests import bounds, malformed
from tests.mirror.tree import (
    COMMAND,
    INDEXES,
    MAN_PAGE,
    ROOT,
    Archive,
    Key,
    Mirror,
    Server,
    apt,
    free_port,
    seen_by_client,
    serve,
    sha,
    start,
)


def tree(root: Path) -> dict[str, str]:
    """What a mirror of everything in a source shows."""
    return Mirror("", root, root).shown()


def test_fresh_mirror_serves_apt(mirror: Mirror, archive: Archive, tmp_path: Path) -> None:
    out = mirror.ok()
    assert "all files are verified" in out
    assert "shows trixie of" in out
    shown, public = mirror.shown(), tree(archive.root)
    assert shown.keys() - public.keys() == {
        f"project/trace/{p.name}" for p in (mirror.dest / "project/trace").iterdir()
    } - {"project/trace/master"}
    assert {k: v for k, v in shown.items() if k in public} == public
    assert (mirror.dest / "images/trixie/ec2/amd64/current").readlink() == Path("20261120.0")
    assert [p.name for p in mirror.dest.iterdir() if p.name.startswith(".")] == [".mirror"]

    done = apt(mirror, tmp_path / "apt", "update", "-o", "APT::Update::Error-Mode=any")
    assert done.returncode == 0, done.stderr
    assert "W:" not in done.stderr
    lists = [p for p in (tmp_path / "apt/var/lib/apt/lists").iterdir() if p.name.endswith("Images")]
    assert [p.read_text() for p in lists] == [archive.text("Images")]
    done = apt(mirror, tmp_path / "apt", "download", "debian-cloud-config-ec2")
    assert done.returncode == 0, done.stderr
    assert (
        sha(tmp_path / "apt/debian-cloud-config-ec2_0.1.0_amd64.deb") in archive.packages["debian-cloud-config-ec2"]
    )


def test_second_run_transfers_nothing(mirror: Mirror) -> None:
    mirror.ok()
    before = mirror.shown()
    out = mirror.ok()
    assert "fetching" not in out
    assert mirror.shown().keys() == before.keys()
    changed = {k for k in before if before[k] != mirror.shown()[k]}
    assert all(k.startswith("project/trace/") for k in changed)


def test_second_run_asks_nginx_for_the_signed_release_alone(
    archive: Archive, slow: Callable[[str, int], Server], key: Key, tmp_path: Path
) -> None:
    mirror = Mirror(slow("http", 0).url, tmp_path / "mirror", key.keyring)
    mirror.ok()
    log = tmp_path / "etc-http/access.log"
    first = len(log.read_text().splitlines())
    mirror.ok()
    asked = re.findall(r'"GET (\S+) ', "\n".join(log.read_text().splitlines()[first:]))
    assert sorted(asked) == sorted(f"/{p}" for p in ("dists/trixie/InRelease", "project/trace/master"))


def test_follows_the_source(mirror: Mirror, archive: Archive) -> None:
    mirror.ok()
    archive.add_deb("debian-cloud-config-ec2", "0.2.0")
    archive.add_image("ec2", "20261121.0")
    archive.publish()
    mirror.ok()
    shown, public = mirror.shown(), tree(archive.root)
    assert {k: v for k, v in shown.items() if k in public} == public
    assert seen_by_client(mirror.dest) == archive.date
    assert (mirror.dest / "images/trixie/ec2/amd64/current").readlink() == Path("20261121.0")
    # The removed package and the older indexes by hash stay for clients with the older InRelease.
    assert (mirror.dest / "pool/main/d/debian-cloud-config-ec2/debian-cloud-config-ec2_0.1.0_amd64.deb").exists()


def test_what_left_the_indexes_stays_as_long_as_a_signature(mirror: Mirror, archive: Archive) -> None:
    mirror.ok()
    del archive.images["ec2 20261119.0"], archive.images["generic 20261120.0"], archive.packages["libcloud++"]
    for folder in ("images", "rebuilds"):
        shutil.rmtree(archive.root / folder / "trixie/ec2/amd64/20261119.0")
    archive.publish()
    old = mirror.shown()
    mirror.ok()
    gone = [k for k in old if k not in mirror.shown()]
    assert gone == ["images/trixie/generic/amd64/current"], "a withdrawn image is no longer current, its files stay"

    left = mirror.dest / ".mirror/left"
    lines = [line.split() for line in left.read_text().splitlines()]
    files = {k for k, content in old.items() if not content.startswith("-> ")}
    assert {p for _, p in lines} >= {
        k for k in files if "/20261119.0/" in k or "/generic/amd64/2" in k or "libcloud" in k
    }
    assert not any("ec2/amd64/20261120.0" in p for _, p in lines)

    def back(days: float) -> None:
        left.write_text("".join(f"{int(time.time() - days * 86400)} {p}\n" for _, p in lines))

    # They stay while the archive's signatures may be valid.
    back(9.9)
    mirror.ok()
    assert all(k in mirror.shown() for k in old if k not in gone)
    back(10.1)
    mirror.ok()
    now = mirror.shown()
    own = {k for k in now if k.startswith("project/trace/") and k != "project/trace/master"}
    left_behind = {k for k in tree(archive.root) if "generic" in k or "libcloud" in k}  # the source's grace period
    old_hashes = {k for k in tree(archive.root) if "by-hash" in k} - now.keys()
    assert now.keys() - own == tree(archive.root).keys() - left_behind - old_hashes
    assert old_hashes, "the mirror lets old generations of the indexes go too"
    assert seen_by_client(mirror.dest) == archive.date
    assert not (mirror.dest / "images/trixie/generic").exists(), "empty directories go too"


def test_source_without_by_hash_and_with_one_form(mirror: Mirror, archive: Archive) -> None:
    for folder in list(archive.root.rglob("by-hash")):
        shutil.rmtree(folder)
    for index in INDEXES:
        (archive.root / "dists/trixie" / index).unlink()
        (archive.root / "dists/trixie" / f"{index}.gz").unlink()
    mirror.ok()
    shown = mirror.shown()
    assert {k: v for k, v in shown.items() if k in tree(archive.root)} == tree(archive.root)
    assert sum("by-hash" in k for k in shown) == len(INDEXES)


def test_source_without_detached_release(mirror: Mirror, archive: Archive) -> None:
    for name in ("Release", "Release.gpg"):
        (archive.root / "dists/trixie" / name).unlink()
    mirror.ok()
    assert not (mirror.dest / "dists/trixie/Release").exists()
    assert seen_by_client(mirror.dest) == archive.date


def test_trace(mirror: Mirror) -> None:
    mirror.ok()
    host = subprocess.run(["hostname", "-f"], capture_output=True, text=True).stdout.strip() or os.uname().nodename
    trace = (mirror.dest / "project/trace" / host).read_text()
    assert re.search(r"^Archive serial: \d{10}$", trace, re.M)
    assert re.search(r"^Date: \w{3}, \d\d \w{3} \d{4} [\d:]{8} \+0000$", trace, re.M)
    assert re.search(r"^Upstream-mirror: 127.0.0.1:\d+$", trace, re.M)
    assert re.search(r"^Creator: debian-cloud-mirror \S+$", trace, re.M)
    assert "Suites: trixie\n" in trace


GOOD_TRACE = (
    "Fri Nov 20 12:00:00 UTC 2026\nArchive serial: 2026112001\nDate: Fri, 20 Nov 2026 12:00:00 +0000\nSuites: a b-c\n"
)


@pytest.mark.parametrize(
    ("trace", "shown"),
    [
        (GOOD_TRACE, GOOD_TRACE),
        (f"<script>\n{GOOD_TRACE}\x1b[2JUpstream-mirror: evil\n{'x' * 9000}\n", GOOD_TRACE),
        (GOOD_TRACE * 3, GOOD_TRACE),
        ("\n" * 5000 + GOOD_TRACE, None),
        ("Archive serial: 2026112001<b>\nDate: Fri, 20 Nov 2026 12:00:00 +0000 <b>\n", None),
        ("Archive serial: 1\rArchive serial: 2\n", None),
        (f"Archive serial: {'1' * 30}\n", None),
        ("Suites: ../x\nSuites: x<b>\n", None),
        ("Archive serial: 2026112001\nDate: <b>\n", "Archive serial: 2026112001\n"),
    ],
    ids=["good", "surrounded", "thrice", "far-below", "tails", "control", "long", "suites", "no-date"],
)
def test_unsigned_trace_goes_on_only_where_it_has_the_known_shape(
    archive: Archive, servers: dict[str, Server], key: Key, tmp_path: Path, trace: str, shown: str | None
) -> None:
    mirror = Mirror(f"{servers['http'].url}/{archive.root.name}", tmp_path / "mirror", key.keyring)
    (archive.root / "project/trace/master").write_text(trace, newline="")
    mirror.ok()
    copied = mirror.dest / "project/trace/master"
    assert (copied.read_text() if copied.exists() else None) == shown
    [own] = [path for path in copied.parent.iterdir() if path != copied]
    assert f"Archive serial: {'2026112001' if shown else 'unknown'}\n" in own.read_text()


@pytest.mark.parametrize("before", [None, 0o755])
def test_what_is_not_verified_is_closed_to_servers(mirror: Mirror, before: int | None) -> None:
    state = mirror.dest / ".mirror"
    if before:  # an earlier version left it with this mode
        state.mkdir(parents=True)
        state.chmod(before)
    mirror.ok()
    assert state.stat().st_mode & 0o777 == 0o700
    folders = [mirror.dest, *(path for path in mirror.dest.glob("[!.]*/**/"))]
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o755}


@pytest.mark.parametrize("scheme", ["rsync", "http"])
def test_example_servers_hide_the_state_folder(mirror: Mirror, tmp_path: Path, scheme: str) -> None:
    """The examples as shipped, except for path, address and user: this user could read the directory."""
    mirror.ok()
    port = free_port()
    example = ROOT / "archive/examples" / {"rsync": "rsyncd.conf", "http": "nginx.conf"}[scheme]
    text = example.read_text().replace("/srv/debian-cloud/archive/public", str(mirror.dest))
    assert str(mirror.dest) in text
    conf = tmp_path / "server.conf"
    if scheme == "rsync":
        text = re.sub("^(uid|gid|use chroot) = .*$", "", text, flags=re.M)
        conf.write_text(
            f"use chroot = no\nlock file = {tmp_path}/lock\n"
            + ("uid = root\ngid = root\n" if os.geteuid() == 0 else "")
            + text
        )
        command = ["rsync", "--daemon", "--no-detach", "--address=127.0.0.1", f"--port={port}", f"--config={conf}"]
        url = f"rsync://127.0.0.1:{port}/debian-cloud"
        get = ["rsync", "--quiet"]
    else:
        text = re.sub(r"^    (listen (\[|443)|ssl_).*$", "", text, flags=re.M).replace(
            "listen 80;", f"listen 127.0.0.1:{port};"
        )
        temp = "".join(f"{n}_temp_path {tmp_path}/{n};" for n in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        user = "user root;" if os.geteuid() == 0 else ""
        conf.write_text(
            f"{user} daemon off; pid {tmp_path}/pid; events {{}} http {{ {temp} access_log off;\n{text}}}\n"
        )
        command = ["nginx", "-c", str(conf), "-e", str(tmp_path / "error.log")]
        url = f"http://127.0.0.1:{port}"
        get = ["curl", "--silent", "--fail", "--path-as-is"]
    server = start(scheme, url, port, command)
    try:
        for path, there in (
            ("dists/trixie/InRelease", True),
            (".mirror/trixie.files", False),
            (".mirror/left", False),
            ("dists/../.mirror/left", False),
            ("/.mirror/left", False),
        ):
            out = ["--output", str(tmp_path / "got")] if scheme == "http" else []
            target = [] if scheme == "http" else [str(tmp_path / "got")]
            done = subprocess.run([*get, *out, f"{url}/{path}", *target], capture_output=True, timeout=30)
            assert (done.returncode == 0) == there, path
    finally:
        server.kill()


def test_verify_all_repairs_a_damaged_mirror(mirror: Mirror, archive: Archive) -> None:
    mirror.ok()
    image = next((mirror.dest / "images/trixie/ec2/amd64/20261120.0").glob("*.?.qcow2"))
    flip(image)
    mirror.ok()
    assert sha(image) not in archive.images["ec2 20261120.0"], "a plain run trusts what it verified before"
    mirror.ok("--verify-all")
    assert sha(image) in archive.images["ec2 20261120.0"]


@pytest.mark.parametrize("how", ["asked", "published"])
def test_lost_file_comes_back(mirror: Mirror, archive: Archive, how: str) -> None:
    """With the next publication, or at once if all is verified: an unchanged InRelease ends a run at once."""
    mirror.ok()
    before = mirror.shown()
    for path in (
        "pool/main/l/libcloud++/libcloud++_1.0+b1~rc1_amd64.deb",
        "images/trixie/ec2/amd64/20261119.0/SHA512SUMS.gpg",
    ):
        (mirror.dest / path).unlink()
    if how == "published":
        archive.publish()
    mirror.ok(*(("--verify-all",) if how == "asked" else ()))
    assert mirror.shown().keys() >= before.keys()


def test_two_suites_in_one_mirror(archive: Archive, mirror: Mirror, key: Key) -> None:
    other = Archive(archive.root, key, suite="bookworm")
    other.add_deb("other", "1")
    other.add_image("nocloud", "20261101.0")
    other.publish()
    mirror.ok("--suite", "bookworm")
    both = mirror.shown()
    assert seen_by_client(mirror.dest, "bookworm") == other.date
    assert seen_by_client(mirror.dest) == archive.date
    mirror.ok()  # only trixie: the other suite's files are still named
    assert mirror.shown().keys() == both.keys()
    assert "other_1" not in (mirror.dest / ".mirror/left").read_text()
    shutil.rmtree(mirror.dest / "dists/bookworm")  # how an operator drops a suite
    mirror.ok()
    assert "other_1" in (mirror.dest / ".mirror/left").read_text()


def test_armoured_keyring(mirror: Mirror, key: Key, tmp_path: Path) -> None:
    armoured = tmp_path / "keyring.asc"
    key.gpg("--armor", "--comment", "for tests", "--output", str(armoured), "--export")
    mirror.keyring = armoured
    mirror.ok()


def sign(archive: Archive, *keys: Key, bad: Key | None = None) -> None:
    """Sign InRelease and Release.gpg with all the keys, and with `bad` over another text."""
    dist = archive.root / "dists/trixie"
    release = dist / "Release"
    cleartext, packets = b"", b""
    for key in (*keys, *([bad] if bad else [])):
        text = dist / "signed"
        if key is bad:
            text.write_bytes(release.read_bytes() + b"Other: text\n")
        else:
            shutil.copy(release, text)
        key.gpg("--output", str(dist / "clear"), "--clearsign", str(text))
        head, armour = (dist / "clear").read_bytes().split(b"-----BEGIN PGP SIGNATURE-----")
        cleartext = cleartext or head
        packets += subprocess.run(
            ["gpg", "--dearmor"],
            input=b"-----BEGIN PGP SIGNATURE-----" + armour,
            capture_output=True,
            check=True,
        ).stdout
    (dist / "InRelease").write_bytes(cleartext + openpgp.armoured((packets,)))
    keys[0].gpg("--output", str(dist / "Release.gpg"), "--detach-sign", str(release))
    for name in ("clear", "signed"):
        (dist / name).unlink()


def joined(path: Path, *keyrings: Path) -> Path:
    path.write_bytes(b"".join(keyring.read_bytes() for keyring in keyrings))
    return path


def test_change_of_keys(mirror: Mirror, archive: Archive, key: Key, other_key: Key) -> None:
    """A release signed by the old and the new key is accepted by mirrors with either key."""
    sign(archive, key, other_key)
    mirror.ok()
    sign(archive, other_key, key)
    archive.publish()
    sign(archive, key, other_key)
    mirror.ok()
    assert seen_by_client(mirror.dest) == archive.date


def test_several_signers_are_demanded(
    mirror: Mirror, archive: Archive, key: Key, other_key: Key, tmp_path: Path
) -> None:
    two = ("--signers", "2")
    mirror.keyring = joined(tmp_path / "two.gpg", key.keyring, other_key.keyring)
    sign(archive, key, other_key)
    mirror.ok(*two)
    shown = seen_by_client(mirror.dest)

    # After a newer state with one signature, the mirror stays at the state with two.
    archive.publish()
    mirror.refused(*two, says="is signed by 1 of the keys in .*, and 2 are required")
    sign(archive, key, key)
    mirror.refused(*two, says="is signed by 1 of the keys")
    sign(archive, key, bad=other_key)
    mirror.refused(*two, says="is not signed by a key in")
    sign(archive, key, other_key, bad=key)
    mirror.refused(*two, says="is not signed by a key in")
    stranger = Key.make(tmp_path / "stranger")
    sign(archive, key, stranger)
    stranger.end()
    mirror.refused(*two, says="is signed by 1 of the keys")
    assert seen_by_client(mirror.dest) == shown

    sign(archive, key, other_key)
    mirror.ok(*two)
    assert seen_by_client(mirror.dest) == archive.date


def test_two_subkeys_are_one_signer_and_an_expired_key_none(
    mirror: Mirror, archive: Archive, key: Key, tmp_path: Path
) -> None:
    several = Key.make(tmp_path / "several")
    short = Key.make(tmp_path / "short")
    [primary] = several.fingerprints()
    for _ in range(2):
        several.gpg("--passphrase", "", "--quick-add-key", primary, "ed25519", "sign")
    (several.home / "gpg.conf").write_text("".join(f"local-user {each}!\n" for each in several.fingerprints()))
    several.gpg("--export", "--output", str(several.keyring))
    mirror.keyring = joined(tmp_path / "keys.gpg", key.keyring, several.keyring, short.keyring)
    sign(archive, several)
    command = ["gpg", "--list-packets", str(archive.root / "dists/trixie/Release.gpg")]
    packets = subprocess.run(command, capture_output=True, text=True).stdout
    assert packets.count(":signature packet:") == 3
    mirror.refused("--signers", "2", says="is signed by 1 of the keys")

    sign(archive, key, short)
    mirror.ok("--signers", "2")
    archive.publish()
    sign(archive, key, short)
    [fingerprint] = short.fingerprints()
    short.gpg("--passphrase", "", "--quick-set-expire", fingerprint, "seconds=1")
    short.gpg("--export", "--output", str(short.keyring))
    time.sleep(2)
    mirror.keyring = joined(tmp_path / "keys.gpg", key.keyring, several.keyring, short.keyring)
    mirror.refused("--signers", "2", says="is signed by 1 of the keys")
    mirror.ok()
    several.end()
    short.end()


def test_sums_that_were_signed_anew_come_with_another_keyring(
    mirror: Mirror, archive: Archive, other_key: Key
) -> None:
    mirror.ok()
    archive.key = other_key
    for path in archive.root.glob("images/*/*/*/[0-9]*"):
        archive.sign_sums(path)
    archive.publish()
    mirror.keyring = other_key.keyring
    mirror.ok()
    shown = mirror.shown()
    assert {k: v for k, v in shown.items() if k in tree(archive.root)} == tree(archive.root)
    assert "fetching" not in mirror.ok()


# ---- attacks -------------------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    """Change the last byte, not the size."""
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def only(archive: Archive, pattern: str) -> Path:
    [path] = archive.root.glob(pattern)
    return path


NEW = "images/trixie/ec2/amd64/20261121.0"


def wrong_key(archive: Archive, other: Key) -> None:
    archive.key = other
    archive.publish()


def unsigned(archive: Archive, _: Key) -> None:
    dist = archive.root / "dists/trixie"
    shutil.copy(dist / "Release", dist / "InRelease")


def text_before_the_signed(archive: Archive, _: Key) -> None:
    path = archive.root / "dists/trixie/InRelease"
    path.write_text("Origin: Evil\n\n" + path.read_text())


def text_after_the_signed(archive: Archive, _: Key) -> None:
    path = archive.root / "dists/trixie/InRelease"
    path.write_text(path.read_text() + "Origin: Evil\n")


def foreign_message_before(archive: Archive, other: Key) -> None:
    dist = archive.root / "dists/trixie"
    good = (dist / "InRelease").read_text()
    other.gpg("--output", str(dist / "InRelease"), "--clearsign", str(dist / "Release"))
    (dist / "InRelease").write_text((dist / "InRelease").read_text() + good)


def altered_signed_text(archive: Archive, _: Key) -> None:
    path = archive.root / "dists/trixie/InRelease"
    path.write_text(path.read_text().replace("Origin: Test", "Origin: Evil"))


def expired(archive: Archive, _: Key) -> None:
    archive.valid = timedelta(minutes=1)
    archive.publish()


def rollback(archive: Archive, _: Key) -> None:
    archive.publish(archive.date - timedelta(hours=5))


def future(archive: Archive, _: Key) -> None:
    archive.publish(archive.date + timedelta(days=30))


def other_suite(archive: Archive, _: Key) -> None:
    archive.suite = "bookworm"
    archive.publish()
    shutil.rmtree(archive.root / "dists/trixie")
    (archive.root / "dists/bookworm").rename(archive.root / "dists/trixie")


def no_sha256(archive: Archive, _: Key) -> None:
    release = archive.root / "dists/trixie/Release"
    release.write_text(release.read_text().replace("SHA256:", "SHA1:"))
    archive.sign_release()


def detached_by_other_key(archive: Archive, other: Key) -> None:
    release = archive.root / "dists/trixie/Release"
    other.gpg("--output", f"{release}.gpg", "--detach-sign", str(release))


def detached_says_otherwise(archive: Archive, _: Key) -> None:
    release = archive.root / "dists/trixie/Release"
    release.write_text(release.read_text().replace("Origin: Test", "Origin: Other"))
    archive.key.gpg("--output", f"{release}.gpg", "--detach-sign", str(release))


def endless_inrelease(archive: Archive, _: Key) -> None:
    os.truncate(archive.root / "dists/trixie/InRelease", 80 << 20)


def tampered_index(index: str) -> Callable[[Archive, Key], None]:
    def attack(archive: Archive, _: Key) -> None:
        for path in archive.index_files(index):
            if path.stat().st_size:
                flip(path)

    return attack


def index_missing(archive: Archive, _: Key) -> None:
    for path in archive.index_files("main/images/Images"):
        path.unlink()


def tampered_deb(archive: Archive, _: Key) -> None:
    flip(only(archive, "pool/main/n/new/*.deb"))


def missing_deb(archive: Archive, _: Key) -> None:
    only(archive, "pool/main/n/new/*.deb").unlink()


def tampered_image(archive: Archive, _: Key) -> None:
    flip(only(archive, f"{NEW}/*.?.qcow2"))


def truncated_image(archive: Archive, _: Key) -> None:
    os.truncate(only(archive, f"{NEW}/*.?.qcow2"), 10_000)


def endless_image(archive: Archive, _: Key) -> None:
    os.truncate(only(archive, f"{NEW}/*.?.qcow2"), 80 << 20)


def tampered_buildinfo(archive: Archive, _: Key) -> None:
    flip(only(archive, f"{NEW}/*.buildinfo"))


def tampered_statement(archive: Archive, _: Key) -> None:
    flip(only(archive, f"{NEW}/*.intoto.json"))


def tampered_signature_of_the_statement(archive: Archive, _: Key) -> None:
    flip(only(archive, f"{NEW}/*.intoto.json.gpg"))


def missing_bill_of_materials(archive: Archive, _: Key) -> None:
    only(archive, f"{NEW}/*.spdx.json").unlink()


def line(text: str) -> Callable[[Archive, Key], None]:
    """Publish a line in the index of all files."""

    def attack(archive: Archive, _: Key) -> None:
        archive.files_extra = (text,)
        archive.publish()

    return attack


def tampered_changes(archive: Archive, _: Key) -> None:
    flip(only(archive, f"{NEW}/*.changes"))


def sums_by_other_key(archive: Archive, other: Key) -> None:
    other.detach(archive.root / NEW / "SHA256SUMS")


def one_bad_sums_signature(archive: Archive, other: Key) -> None:
    sums = archive.root / NEW / "SHA512SUMS"
    other.gpg("--output", f"{sums}.gpg", "--detach-sign", str(sums))


def tampered_sums(archive: Archive, _: Key) -> None:
    sums = archive.root / NEW / "SHA512SUMS"
    sums.write_text(sums.read_text() + f"{'0' * 128}  more\n")


def sums_missing(archive: Archive, _: Key) -> None:
    (archive.root / NEW / "SHA512SUMS.sign").unlink()


def two_hashes_for_one_file(archive: Archive, _: Key) -> None:
    archive.packages["twin"] = re.sub("SHA256: .*", "SHA256: " + "0" * 64, archive.packages["new"])
    archive.publish()


def file_that_is_a_folder(archive: Archive, _: Key) -> None:
    archive.packages_extra = f"\nPackage: x\nFilename: pool/main/n/new\nSize: 1\nSHA256: {'0' * 64}\n"
    archive.publish()


def no_hash_in_packages(archive: Archive, _: Key) -> None:
    archive.packages_extra = "\nPackage: x\nFilename: pool/main/x/x.deb\nSize: 1\nMD5sum: 0\n"
    archive.publish()


def index_path_leaves_the_tree(archive: Archive, _: Key) -> None:
    release = archive.root / "dists/trixie/Release"
    release.write_text(release.read_text() + f" {'0' * 64} 10 ../../../escaped\n")
    archive.sign_release()


def index_takes_the_place_of_inrelease(archive: Archive, _: Key) -> None:
    release = archive.root / "dists/trixie/Release"
    release.write_text(release.read_text() + f" {'0' * 64} 10 InRelease\n")
    archive.sign_release()


MISMATCH = "does not have the size and hash"
ATTACKS: list[tuple[Callable[[Archive, Key], None], str]] = [
    (wrong_key, "not signed by a key in"),
    (unsigned, "not signed by a key in"),
    (text_before_the_signed, "not signed by a key in"),
    (text_after_the_signed, "not signed by a key in"),
    (foreign_message_before, "not signed by a key in"),
    (altered_signed_text, "not signed by a key in"),
    (expired, "expired: it was valid until"),
    (rollback, "older than that of this mirror"),
    (future, "dated in the future"),
    (other_suite, "is the index of suite 'bookworm'"),
    (no_sha256, "lists no index by SHA256"),
    (detached_by_other_key, "Release.gpg do not agree with"),
    (detached_says_otherwise, "Release.gpg do not agree with"),
    (endless_inrelease, "cannot fetch from"),
    (index_missing, "main/images/Images is missing"),
    (tampered_deb, f"new_1_amd64.deb {MISMATCH}"),
    (missing_deb, "new_1_amd64.deb is missing at the source"),
    (tampered_image, f"qcow2 {MISMATCH}"),
    (truncated_image, f"qcow2 {MISMATCH}"),
    (endless_image, f"cannot fetch from|qcow2 {MISMATCH}"),
    (tampered_buildinfo, f"buildinfo {MISMATCH}"),
    (tampered_changes, f"changes {MISMATCH}"),
    (tampered_statement, f"intoto.json {MISMATCH}"),
    (tampered_signature_of_the_statement, f"intoto.json.gpg {MISMATCH}"),
    (missing_bill_of_materials, "spdx.json is missing at the source"),
    (sums_by_other_key, f"SHA256SUMS.(sign|gpg) {MISMATCH}"),
    (one_bad_sums_signature, f"SHA512SUMS.gpg {MISMATCH}"),
    (tampered_sums, f"SHA512SUMS {MISMATCH}"),
    (sums_missing, "SHA512SUMS.sign is missing at the source"),
    (two_hashes_for_one_file, "contradict each other on .*new_1_amd64.deb"),
    (file_that_is_a_folder, "contradict each other on pool/main/n/new"),
    (no_hash_in_packages, "has no valid SHA256"),
    (index_path_leaves_the_tree, "an index with an invalid path"),
    (index_takes_the_place_of_inrelease, "an index with an invalid path"),
]


def named(name: str, attack: Callable[[Archive, Key], None]) -> Callable[[Archive, Key], None]:
    attack.__name__ = name
    return attack


ATTACKS += [(named(f"tampered_{i.split('/')[-1]}", tampered_index(i)), f"{i}\\S* {MISMATCH}") for i in INDEXES]


STEM = f"{NEW}/debian-13-ec2-amd64-20261121.0"
BUILT = NEW.replace("images", "rebuilds")
NOT_A_LINE = "main/images/Files: line [0-9]+ is not a file or a link after those before it"
ATTACKS += [
    (named(f"line_{name}", line(text)), says)
    for name, text, says in (
        ("in_the_pool", f"{'0' * 64} 10 pool/x", NOT_A_LINE),
        ("among_the_indexes", f"{'0' * 64} 10 dists/trixie/InRelease", NOT_A_LINE),
        ("of_the_mirror_itself", f"{'0' * 64} 10 .mirror/trixie.files", NOT_A_LINE),
        ("above", f"{'0' * 64} 10 {NEW}/../../../../../../escaped", NOT_A_LINE),
        ("hidden", f"{'0' * 64} 10 {NEW}/.x", NOT_A_LINE),
        ("at_the_root", f"{'0' * 64} 10 /images/x", NOT_A_LINE),
        ("without_a_size", f"{'0' * 64} {STEM}.x", NOT_A_LINE),
        ("without_a_hash", f"0 10 {STEM}.x", NOT_A_LINE),
        ("of_a_large_file", f"{'0' * 64} {10**14} {STEM}.x", NOT_A_LINE),
        ("with_more", f"{'0' * 64} 10 1 {STEM}.x", NOT_A_LINE),
        ("with_a_control_character", f"{'0' * 64} 10 {STEM}.\x1b[2Jx", NOT_A_LINE),
        ("that_is_long", f"{'0' * 64} 10 {NEW}{'/x' * 500}", NOT_A_LINE),
        ("linked_above", f"link ../../../../../etc {NEW}/x", NOT_A_LINE),
        ("linked_to_the_root", f"link /etc {NEW}/x", NOT_A_LINE),
        ("linked_to_itself_above", f"link .. {NEW}/x", NOT_A_LINE),
        ("linked_without_a_name", f"link  {NEW}/x", NOT_A_LINE),
        ("linked_in_the_pool", "link x pool/x", NOT_A_LINE),
        ("below_a_link", f"{'0' * 64} 10 images/trixie/ec2/amd64/current/x", "contradict each other on .*current"),
        ("below_a_file", f"{'0' * 64} 10 {STEM}.qcow2/x", "contradict each other on .*qcow2"),
        ("of_a_file_that_is_not_there", f"{'0' * 64} 10 {BUILT}/x", "x is missing at the source"),
    )
]


def disk_that_the_indexes_disagree_on(archive: Archive, _: Key) -> None:
    disk = only(archive, f"{NEW}/*.?.qcow2")
    archive.files_extra = (f"{'0' * 64} {disk.stat().st_size} {disk.relative_to(archive.root)}",)
    archive.publish()


def line_twice(archive: Archive, _: Key) -> None:
    text = archive.text("Files").splitlines(keepends=True)
    archive.instead = {"main/images/Files": "".join([*text, text[-1]]).encode()}
    archive.publish()


def lines_in_another_order(archive: Archive, _: Key) -> None:
    text = archive.text("Files").splitlines(keepends=True)
    archive.instead = {"main/images/Files": "".join([text[-1], *text[:-1]]).encode()}
    archive.publish()


def line_without_an_end(archive: Archive, _: Key) -> None:
    archive.instead = {"main/images/Files": archive.text("Files").encode()[:-1]}
    archive.publish()


def archive_of_an_older_version(archive: Archive, _: Key) -> None:
    release = archive.root / "dists/trixie/Release"
    text = release.read_text().splitlines(keepends=True)
    release.write_text("".join(row for row in text if "images/Files" not in row))
    archive.sign_release()


ATTACKS += [
    (disk_that_the_indexes_disagree_on, "contradict each other on .*qcow2"),
    (line_twice, NOT_A_LINE),
    (lines_in_another_order, NOT_A_LINE),
    (line_without_an_end, NOT_A_LINE),
    (archive_of_an_older_version, "lists no Files, which mirrors need"),
]


def tampered_rebuild(archive: Archive, _: Key) -> None:
    flip(only(archive, f"{BUILT}/*.asc"))


ATTACKS.append((tampered_rebuild, f"asc {MISMATCH}"))


@pytest.mark.parametrize(("attack", "says"), ATTACKS, ids=[a.__name__ for a, _ in ATTACKS])
def test_attack_changes_nothing(
    follower: Mirror, next_archive: Archive, other_key: Key, attack: Callable[[Archive, Key], None], says: str
) -> None:
    attack(next_archive, other_key)
    follower.refused(says=says)
    assert not list(follower.dest.parent.rglob("escaped"))


def test_what_nobody_attacks_is_followed(follower: Mirror, next_archive: Archive) -> None:
    """Without an attack, the next publication is followed, so a refusal below is due to the attack."""
    before = follower.shown()
    assert seen_by_client(follower.dest) < next_archive.date
    follower.ok()
    assert seen_by_client(follower.dest) == next_archive.date
    assert len(follower.shown()) > len(before)


def test_signatures_without_an_end_end(mirror: Mirror, archive: Archive) -> None:
    mirror.ok()
    for name in ("InRelease", "Release"):
        (archive.root / "dists/trixie" / name).write_bytes(malformed.packed_signatures(300))
    mirror.refused("--timeout", "3", says="not signed by a key in")


def test_attack_on_a_fresh_mirror_shows_nothing(mirror: Mirror, archive: Archive, other_key: Key) -> None:
    wrong_key(archive, other_key)
    mirror.refused(says="not signed by a key in")
    assert mirror.shown() == {}


PATHS = [
    "../../x",
    "/etc/x",
    "pool/../../x",
    "images/../x",
    "pool/a b",
    "pool/.x",
    "pool//x",
    "pool/x/",
    "pool/-x",
    "pool/x;y",
    "pool/$(x)",
    "pool/\x1b[2Jx",
    "dists/trixie/InRelease",
    "images/trixie/ec2/amd64/current/x",
    ".mirror/trixie.files",
    "",
]


@pytest.mark.parametrize(
    ("index", "path"),
    [("Packages", p) for p in PATHS] + [("Sources", p) for p in PATHS[:5]],
)
def test_signed_path_is_refused_before_anything_is_fetched(
    archive: Archive, servers: dict[str, Server], key: Key, tmp_path: Path, index: str, path: str
) -> None:
    if index == "Packages":
        archive.packages_extra = f"\nPackage: x\nFilename: {path}\nSize: 1\nSHA256: {'0' * 64}\n"
    else:
        folder, _, name = path.rpartition("/")
        archive.sources += f"\nPackage: x\nDirectory: {folder}\nChecksums-Sha256:\n {'0' * 64} 1 {name}\n"
    archive.publish()
    mirror = Mirror(f"{servers['http'].url}/{archive.root.name}", tmp_path / "mirror", key.keyring)
    mirror.refused(says="has an invalid |has no valid SHA256|without Checksums|control character")
    assert mirror.shown() == {}
    assert not (mirror.dest / ".mirror/incoming/pool").exists()
    assert not (mirror.dest / ".mirror/incoming/images").exists()


@pytest.fixture(scope="module")
def served(
    template: Archive, site: Path, servers: dict[str, Server], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Archive, Mirror]]:
    """An archive whose indexes the tests replace, and a mirror of it that shows the original ones."""
    root = site / "replaced"
    shutil.copytree(template.root, root, symlinks=True)
    archive = Archive(root, template.key, packages=dict(template.packages), images=dict(template.images))
    archive.current, archive.date, archive.sources = dict(template.current), template.date, template.sources
    mirror = Mirror(f"{servers['http'].url}/replaced", tmp_path_factory.mktemp("replaced"), template.key.keyring)
    mirror.ok()
    yield archive, mirror
    shutil.rmtree(root)


READ = """
import hashlib
import sys
from pathlib import Path
from debian_cloud.host import command
from debian_cloud.mirror import indexes, listed

def main(words):
    folder, name, sha256, size = Path(words[0]), *words[1:]
    empty = listed.Listed("empty", hashlib.sha256(b"\\n").hexdigest(), 1)
    known = {"main/images/Files": empty, name: listed.Listed("index", sha256, int(size))}
    indexes.read("trixie", known, lambda path: folder / path)
    return 0

sys.exit(command.main(main))
"""
"""A program that reads a verified index, as the mirror does."""
MEBIBYTES = 200
"""What a mirror of any size may take."""


BAD = [("Images", name, text) for name, text in malformed.BAD_IMAGES.items()]
BAD += [("Images-Status", name, text) for name, text in malformed.BAD_STATUS.items()]
REASONS = r"dists/trixie/main/images/Images(-Status)?: "


def read(folder: Path, index: str, text: bytes) -> subprocess.CompletedProcess[bytes]:
    """Let the program read an index, with at most 150 MiB for each of its processes."""
    (folder / "index").write_bytes(text)
    (folder / "empty").write_bytes(b"\n")
    line = (f"main/{index}", hashlib.sha256(text).hexdigest(), str(len(text)))
    return bounds.within(MEBIBYTES, [sys.executable, "-c", READ, folder, *line], PYTHONPATH=f"{ROOT}/src")


@pytest.mark.parametrize(("index", "name", "text"), BAD, ids=[f"{index} {name}" for index, name, _ in BAD])
def test_what_a_client_refuses_is_refused(tmp_path: Path, index: str, name: str, text: bytes) -> None:
    done = read(tmp_path, f"images/{index}", text)
    assert done.returncode == 1
    assert done.stdout == b""
    error, hint = done.stderr.decode().splitlines()
    assert re.search(f"^debian-cloud: error: {REASONS}", error)
    assert hint.endswith("hint: the archive itself is faulty: report it to its operator; nothing was changed")


@pytest.mark.parametrize("text", malformed.EDGES.values(), ids=malformed.EDGES)
def test_what_clients_take_is_taken(tmp_path: Path, text: bytes) -> None:
    for index, content in (("Images", text), ("Images-Status", malformed.STATUS.encode())):
        done = read(tmp_path, f"images/{index}", content)
        assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    "name",
    ["Size: '0' of 1", "Sha512 beside SHA512", *filter(re.compile("disagree on").search, malformed.BAD_IMAGES)],
)
def test_what_a_client_refuses_is_not_shown(served: tuple[Archive, Mirror], name: str) -> None:
    archive, mirror = served
    archive.instead = {"main/images/Images": malformed.BAD_IMAGES[name]}
    archive.publish(archive.date)
    mirror.refused(says=REASONS)


def test_what_clients_take_is_looked_for(served: tuple[Archive, Mirror]) -> None:
    """The only problem reported is that the images named there do not exist."""
    archive, mirror = served
    archive.instead = {"main/images/Images": malformed.IMAGES.encode(), "main/images/Files": b"\n"}
    archive.publish(archive.date)
    mirror.refused(says="is missing at the source")


@pytest.mark.parametrize("index", ["images/Files", "images/Images", "binary-amd64/Packages", "source/Sources"])
@pytest.mark.parametrize("text", [b" ", b"\n", b"x", b"x:\n", b" x\n", b"x: y\n x\n"], ids=repr)
def test_what_is_not_too_large_takes_no_more_memory(tmp_path: Path, index: str, text: bytes) -> None:
    """An index that is not too large still has limits for its lines and stanzas."""
    done = read(tmp_path, index, text * (2**25 // len(text)))
    assert done.returncode == 1, done.stderr
    error, _hint = done.stderr.decode().splitlines()
    assert index in error


def bomb(archive: Archive, index: str, form: str, character: bytes, size: int, listed: int | None) -> None:
    """Replace an index with a few kilobytes in one format that unpack to `size` bytes of one value.

    InRelease lists the uncompressed one with the size `listed`, or not at all.
    """
    archive.instead = {}
    archive.publish(archive.date)
    dist = archive.root / "dists" / archive.suite
    plain = hashlib.sha256()
    for piece in bounds.of(character, size):
        plain.update(piece)
    lines = [f" {plain.hexdigest()} {listed} {index}"] if listed is not None else []
    for path in archive.index_files(index):
        path.unlink(missing_ok=True)
    packed = bounds.packed(character, size) if form == ".xz" else gzip.compress(character * size, 1)
    path = dist / f"{index}{form}"
    path.write_bytes(packed)
    (path.parent / "by-hash/SHA256" / sha(path)).write_bytes(packed)
    lines.append(f" {sha(path)} {len(packed)} {index}{form}")
    release = dist / "Release"
    kept = [line for line in release.read_text().splitlines() if not re.search(rf" {index}(\.\w+)?$", line)]
    release.write_text("\n".join([*kept, *lines, ""]))
    archive.sign_release()


BOMB = 2**28 + 1


@pytest.mark.parametrize(
    ("index", "form", "character", "listed"),
    [
        ("main/images/Images", ".xz", b"\0", 1000),
        ("main/images/Images", ".xz", b" ", None),
        ("main/images/Images-Status", ".xz", b"\n", BOMB),
        ("main/images/Images", ".gz", b"\0", None),
        ("main/images/Files", ".xz", b"\n", None),
        ("main/binary-amd64/Packages", ".xz", b"\0", None),
    ],
)
def test_what_an_index_unpacks_to_is_bounded(
    served: tuple[Archive, Mirror], index: str, form: str, character: bytes, listed: int | None
) -> None:
    """Each process of the mirror has less memory than the unpacked index."""
    archive, mirror = served
    bomb(archive, index, form, character, BOMB, listed)
    before = mirror.shown()
    done = bounds.within(MEBIBYTES, list(mirror.command()))
    assert done.returncode == 1, done.stderr
    error, _hint = done.stderr.decode().splitlines()
    assert re.search("decompresses to more than its|an index may have|trixie/main/", error)
    assert mirror.shown() == before


def test_another_content_than_the_uncompressed_one_that_is_listed(served: tuple[Archive, Mirror]) -> None:
    archive, mirror = served
    bomb(archive, "main/images/Files", ".xz", b"x", 1000, 1000)
    release = archive.root / "dists/trixie/Release"
    digest = hashlib.sha256(b"x" * 1000).hexdigest()
    release.write_text(release.read_text().replace(digest, "0" * 64))
    archive.sign_release()
    mirror.refused(says="does not contain what InRelease lists as dists/trixie/main/images/Files")


def test_foreign_words_are_shown_as_text(mirror: Mirror, archive: Archive) -> None:
    release = archive.root / "dists/trixie/Release"
    text = release.read_text().replace("Codename: trixie\n", "")
    release.write_text(text.replace("Suite: trixie", "Suite: größer\u202e"))
    archive.sign_release()
    mirror.refused(says=r"is the index of suite 'größer.*u202e'")
    release.write_text(text.replace("Suite: trixie", "Suite: \x1b[2J\x9b"))
    archive.sign_release()
    done = subprocess.run(mirror.command(), capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stderr.replace(b"\n", b"").decode().isprintable()


# ---- what breaks in the middle -------------------------------------------------------------------------------


def shim(folder: Path, tool: str, script: str) -> str:
    """A PATH on which tool runs script first, then the real tool."""
    folder.mkdir(exist_ok=True)
    real = shutil.which(tool)
    (folder / tool).write_text(f'#!/bin/sh\n{script}\nexec {real} "$@"\n')
    (folder / tool).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def test_source_that_changes_in_mid_run_is_followed(mirror: Mirror, archive: Archive, tmp_path: Path) -> None:
    """If the indexes of the fetched InRelease are gone when requested, one restart finds the new state."""
    mirror.ok()
    old = tmp_path / "old"
    shutil.copytree(archive.root, old, symlinks=True)
    first = archive.date
    archive.add_image("ec2", "20261121.0")
    archive.publish()
    between = tmp_path / "between"
    shutil.copytree(archive.root, between, symlinks=True)
    archive.add_image("ec2", "20261122.0")
    archive.publish()
    for path in archive.root.rglob("by-hash/SHA256/*"):  # only the newest generation is left
        if path.name not in (archive.root / "dists/trixie/InRelease").read_text():
            path.unlink()
    final = tmp_path / "final"
    archive.root.rename(final)
    between.rename(archive.root)
    path_variable = shim(
        tmp_path / "bin",
        "gpgv",
        f"[ -e {tmp_path}/once ] || {{ : >{tmp_path}/once; rm -r {archive.root}; cp -a {final} {archive.root}; }}",
    )
    done = mirror.run(path=path_variable)
    assert done.returncode == 0, done.stderr
    assert "starting again" in done.stdout
    assert seen_by_client(mirror.dest) == archive.date > first
    assert (mirror.dest / "images/trixie/ec2/amd64/current").readlink() == Path("20261122.0")


@pytest.mark.parametrize("scheme", ["rsync", "http"])
def test_server_gone_half_way_then_resumed(
    scheme: str,
    archive: Archive,
    slow: Callable[[str, int], Server],
    servers: dict[str, Server],
    key: Key,
    tmp_path: Path,
) -> None:
    mirror = Mirror(f"{servers[scheme].url}/{archive.root.name}", tmp_path / "mirror", key.keyring)
    mirror.ok()
    before = mirror.shown()
    image = archive.add_image("ec2", "20261121.0", 3_000_000)
    archive.publish()
    server = slow(scheme, 500)
    module = f"rsync://{server.url.split('/')[2]}/tree" if scheme == "rsync" else server.url
    cut = Mirror(module, mirror.dest, key.keyring)
    process = subprocess.Popen(
        cut.command("--timeout", "5"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    piece = mirror.dest / ".mirror/incoming" / image.relative_to(archive.root)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not (piece.exists() and piece.stat().st_size > 100_000):
        time.sleep(0.02)
    server.kill()
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert error.startswith("debian-cloud-mirror: error: cannot fetch from"), error
    assert mirror.shown() == before
    assert 0 < piece.stat().st_size < 3_000_000
    inode = piece.stat().st_ino
    again = serve(scheme, archive.root, tmp_path / f"etc-{scheme}-2")
    try:
        Mirror(again.url, mirror.dest, key.keyring).ok()
    finally:
        again.kill()
    shown = mirror.dest / image.relative_to(archive.root)
    assert sha(shown) == sha(image)
    assert shown.stat().st_ino == inode, "the piece was gone on with"


def test_garbage_left_in_the_staging_area_is_not_shown(mirror: Mirror, archive: Archive) -> None:
    mirror.ok()
    image = archive.add_image("ec2", "20261121.0")
    archive.publish()
    kept = next((mirror.dest / "images/trixie/ec2/amd64/20261120.0").glob("*.?.qcow2")).relative_to(mirror.dest)
    at = mirror.source.split("/", 3)[3] if mirror.source.startswith("rsync") else ""
    incoming = mirror.dest / ".mirror/incoming" / at.partition("/")[2]
    for path, size in ((image.relative_to(archive.root), 20_000), (kept, 50_000), (Path("pool/junk"), 10)):
        (incoming / path).parent.mkdir(parents=True, exist_ok=True)
        (incoming / path).write_bytes(os.urandom(size))
    mirror.ok()
    assert {k: v for k, v in mirror.shown().items() if k in tree(archive.root)} == tree(archive.root)
    assert not (mirror.dest / "pool/junk").exists()


def test_disk_full(mirror: Mirror, archive: Archive) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount the small tmpfs that this needs")
    mirror.dest.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(mirror.dest)], capture_output=True
    ).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    try:
        mirror.ok()
        archive.add_image("ec2", "20261121.0", 4_000_000)
        archive.publish()
        mirror.refused(says="cannot fetch from|the mirror needs .* bytes more")
        assert seen_by_client(mirror.dest) < archive.date
        subprocess.run(["mount", "-o", "remount,size=20m", str(mirror.dest)], check=True)
        mirror.ok()
        assert seen_by_client(mirror.dest) == archive.date
    finally:
        subprocess.run(["umount", str(mirror.dest)], check=True)


KILLED = """
import os, sys
from pathlib import Path
from debian_cloud.mirror.__main__ import main

step, words = int(sys.argv[1]), sys.argv[2:]
replace = os.replace

def counted(path, target):
    global step
    step -= 1
    if not step:
        os.kill(0, 9)
    return replace(path, target)

os.replace = counted
sys.exit(main(words))
"""
"""The program, killed with all that it started before the rename of a number."""


def test_kill_at_every_step_shows_the_old_or_the_new(
    archive: Archive, servers: dict[str, Server], key: Key, tmp_path: Path
) -> None:
    """If the run is killed before any rename, a client sees one complete state; the next run repairs the mirror."""
    mirror = Mirror(f"{servers['http'].url}/{archive.root.name}", tmp_path / "mirror", key.keyring)
    mirror.ok()
    clean = tmp_path / "clean"
    shutil.copytree(mirror.dest, clean, symlinks=True)
    old = archive.date
    archive.add_deb("new", "1")
    archive.add_image("ec2", "20261121.0")
    del archive.packages["libcloud++"]
    archive.publish()
    states = []
    for step in range(1, 100):
        shutil.rmtree(mirror.dest)
        shutil.copytree(clean, mirror.dest, symlinks=True)
        words = mirror.command("--quiet")[len(COMMAND) :]
        killed = [sys.executable, "-c", KILLED, str(step), *words]
        done = subprocess.run(killed, start_new_session=True, capture_output=True, timeout=60)
        states.append(seen_by_client(mirror.dest))
        assert states[-1] in (old, archive.date)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        if step % 4 == 0:
            mirror.ok()
            assert {k: v for k, v in mirror.shown().items() if k in tree(archive.root)} == tree(archive.root)
            assert "libcloud" in (mirror.dest / ".mirror/left").read_text()
    assert states == sorted(states)
    assert (states[0], states[-1]) == (old, archive.date)
    assert len(states) > 15, "the steps were really cut"


@pytest.mark.parametrize("tool", ["sync", "curl"])
def test_tool_that_fails_ends_the_run_with_the_old_state(
    archive: Archive, servers: dict[str, Server], key: Key, tmp_path: Path, tool: str
) -> None:
    """If a tool fails at any step, as on a full disk, there is no new InRelease, and status 1 is explained."""
    mirror = Mirror(f"{servers['http'].url}/{archive.root.name}", tmp_path / "mirror", key.keyring)
    mirror.ok()
    old = archive.date
    archive.add_image("ec2", "20261121.0")
    archive.publish()
    done = mirror.run(path=shim(tmp_path / "bin", tool, "echo No space left on device >&2; exit 2"))
    assert done.returncode == 1
    assert re.search("the disk is full|cannot fetch from", done.stderr)
    assert seen_by_client(mirror.dest) == old
    mirror.ok()
    assert seen_by_client(mirror.dest) == archive.date


def test_a_leftover_cannot_pass_for_a_list_of_verified_files(
    archive: Archive, servers: dict[str, Server], key: Key, tmp_path: Path
) -> None:
    mirror = Mirror(f"{servers['http'].url}/{archive.root.name}", tmp_path / "mirror", key.keyring)
    mirror.ok()
    image = archive.add_image("ec2", "20261121.0")
    archive.publish()
    path = image.relative_to(archive.root)
    (mirror.dest / path).parent.mkdir()
    (mirror.dest / path).write_bytes(bytes(image.stat().st_size))
    leftover = mirror.dest / ".mirror/incoming/pool/evil.files"
    leftover.parent.mkdir(parents=True)
    leftover.write_text(f"{sha(image)} {image.stat().st_size} {path}\n")
    mirror.ok()
    assert sha(mirror.dest / path) == sha(image)


def test_two_at_once(mirror: Mirror) -> None:
    mirror.ok()
    lock = os.open(mirror.dest / ".mirror", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    mirror.refused(says="another debian-cloud uses")
    os.close(lock)
    mirror.ok()


def test_hanging_server(archive: Archive, key: Key, tmp_path: Path) -> None:
    """A server that accepts and never answers does not block the run for ever."""
    for scheme, path in (("http", ""), ("rsync", "/tree")):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            s.listen()
            mirror = Mirror(f"{scheme}://127.0.0.1:{s.getsockname()[1]}{path}", tmp_path / scheme, key.keyring)
            mirror.refused("--timeout", "1", says="cannot fetch from")


# ---- wrong use -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([], "the following arguments are required: --keyring, --suite, SOURCE, DEST"),
        (["http://h/", "DEST"], "the following arguments are required: --keyring, --suite"),
        (["--keyring", "KEYRING", "--suite", "trixie", "http://h/"], "the following arguments are required: DEST"),
        (["--keyring", "KEYRING", "http://h/", "DEST"], "the following arguments are required: --suite"),
        (["--keyring=KEYRING", "--suite=trixie", "--suite=trixie", "http://h/", "DEST"], "a suite is given twice"),
        (["--keyring=KEYRING", "--suite=trixie", "--bwlimit=x", "http://h/", "DEST"], "is not a number of KiB"),
        (["--keyring=KEYRING", "--suite=trixie", "http://a/", "http://h/"], "is not a directory for a mirror"),
        (["--keyring=KEYRING", "--suite=trixie", "http://h/", ""], "is not a directory for a mirror"),
        (["--keyring=KEYRING", "--suite=trixie", "--max-delete=", "http://h/", "DEST"], "is not a number of files"),
        (["--keyring=KEYRING", "--suite=trixie", "--max-delete=-1", "http://h/", "DEST"], "is not a number of files"),
        (["--keyring", "KEYRING", "--suite", "../x", "http://h/", "DEST"], "is not the name of a suite"),
        (["--keyring", "KEYRING", "--suite", "trixie", "ftp://h/", "DEST"], "is not a source"),
        (["--keyring", "KEYRING", "--suite", "trixie", "rsync://h", "DEST"], "is not a source"),
        (["--keyring", "KEYRING", "--suite", "trixie", "rsync://h/m/../..", "DEST"], "invalid characters or parts"),
        (["--keyring", "KEYRING", "--suite", "trixie", 'http://h/"x', "DEST"], "invalid characters or parts"),
        (["--keyring", "/nowhere", "--suite", "trixie", "http://h/", "DEST"], "cannot be read"),
        (["--keyring=KEYRING", "--suite=trixie", "--timeout=0", "http://h/", "DEST"], "is not a number of seconds"),
        (["--keyring=KEYRING", "--suite=trixie", "--signers=0", "http://h/", "DEST"], "is not a number of signers"),
        (["--keyring=K", "--suite=trixie", "--sweet", "trixie", "x"], "unrecognized arguments: --sweet"),
        (["--suite"], "--suite: expected one argument"),
    ],
)
def test_wrong_use(key: Key, tmp_path: Path, args: list[str], says: str) -> None:
    dest = tmp_path / "mirror"
    args = [a.replace("KEYRING", str(key.keyring)).replace("DEST", str(dest)) for a in args]
    done = subprocess.run([*COMMAND, *args], capture_output=True, text=True)
    assert done.returncode == 2
    assert re.search(f"^debian-cloud-mirror: error: .*{re.escape(says)}", done.stderr, re.M), done.stderr
    assert re.search("^(debian-cloud-mirror: hint|usage): ", done.stderr, re.M)
    assert not dest.exists()


def test_folder_that_is_no_mirror_is_not_touched(mirror: Mirror) -> None:
    mirror.dest.mkdir()
    (mirror.dest / "thesis.tex").write_text("")
    mirror.refused(says="is not a mirror of debian-cloud-mirror")


def test_suite_that_is_not_there(mirror: Mirror) -> None:
    mirror.suite = "sid"
    mirror.refused(says="has no dists/sid/InRelease; the archive has: trixie")


def test_missing_tool_names_its_package(mirror: Mirror, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("rsync", "curl", "setpriv", "prlimit"):
        (tools / name).symlink_to(shutil.which(name) or name)
    done = mirror.run(path=str(tools))
    assert done.returncode == 2
    assert done.stderr == (
        "debian-cloud-mirror: error: the tool gpgv is missing\ndebian-cloud-mirror: hint: run apt-get install gpgv\n"
    )


def test_help_names_every_option() -> None:
    page = MAN_PAGE.read_text().replace("\\-", "-")
    synopsis, checks = page.partition(".SH DESCRIPTION")[0].split("debian-cloud-mirror check\n")
    described = set(re.findall(r"--[a-z-]+", "\n".join(re.findall(r"^\.TP\n(\.BI? --.*)", page, re.M))))
    used: set[str] = set()
    for made, shown in ((parser(), synopsis), (checker(), checks.partition("\n.br\n")[0])):
        options = {*made._option_string_actions} - {"-h", "--help", "--version"}
        assert set(re.findall("--[a-z-]+", shown)) - {"--version", "--help"} == options
        used |= options
    assert described == used
    completed = (ROOT / "debian/debian-cloud-mirror.bash-completion").read_text()
    of_check, of_all = re.findall(r'"(--[^"]*)" -- "\$cur"', completed)
    assert {*of_all.split()} == {*parser()._option_string_actions} - {"-h"}
    assert {*of_check.split()} == {*checker()._option_string_actions} - {"-h"}


def test_page_is_clean() -> None:
    done = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", MAN_PAGE],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
