# SPDX-License-Identifier: GPL-3.0-or-later
"""No secret and no identity of a machine is in an image: found by path, by content, and in the initrd."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from debian_cloud import plan
from debian_cloud.build import scrub
from debian_cloud.disk import initrd
from debian_cloud.errors import Error
from debian_cloud.host import run
from debian_cloud.host.progress import Progress
from debian_cloud.image import identities
from tests import gnupg
from tests.command import debian_cloud, refused

ROOT: Final = Path(__file__).resolve().parents[2]
RENEW: Final = ROOT / "configs/common/files" / identities.RENEWAL


class Tree:
    """A root file system, as far as scrub reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "var/lib/dpkg/info").mkdir(parents=True)
        (path / "var/lib/dpkg/status").touch()
        for folder in (path, *path.rglob("*")):
            folder.chmod(0o755 if folder.is_dir() else 0o644)

    def file(self, path: str, content: bytes | str = b"x", mode: int = 0o644) -> Path:
        file = self.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        for folder in file.relative_to(self.path).parents:
            if folder != Path():
                (self.path / folder).chmod((self.path / folder).stat().st_mode | 0o755)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        file.chmod(mode)
        return file

    def owned(self, package: str, *paths: str) -> None:
        self.file(f"var/lib/dpkg/info/{package}.list", "".join(f"/{path}\n" for path in paths))

    def findings(self, keep: tuple[str, ...] = (), drop: tuple[str, ...] = ()) -> list[str]:
        return [str(finding) for finding in scrub.scrub(self.path, keep, drop).secrets]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "tree")


# Files that are known by their path.


def test_what_each_machine_makes_again_is_taken_out_and_noted(tree: Tree) -> None:
    tree.file(identities.RENEWAL)
    for path in ("etc/munge/munge.key", "etc/nvme/hostid", "etc/nvme/hostnqn"):
        tree.file(path)
    done = scrub.scrub(tree.path)
    assert done.removed == ("etc/munge/munge.key", "etc/nvme/hostid", "etc/nvme/hostnqn")
    assert done.secrets == ()
    assert (tree.path / identities.RENEWED).read_text() == "munge\nnvme-cli\n"
    assert (tree.path / identities.RENEWED).stat().st_mode & 0o777 == 0o644
    assert list((tree.path / "etc/munge").iterdir()) == []


def test_an_image_that_nobody_made_an_identity_in_is_not_changed(tree: Tree) -> None:
    tree.file(identities.RENEWAL)
    tree.file("etc/hostname", "x\n")
    before = sorted(tree.path.rglob("*"))
    assert scrub.scrub(tree.path) == scrub.Scrubbed((), ())
    assert sorted(tree.path.rglob("*")) == before


def test_without_the_layer_that_makes_it_again_it_is_refused(tree: Tree) -> None:
    tree.file("etc/munge/munge.key")
    assert tree.findings() == ["/etc/munge/munge.key (munge): the key of its realm"]
    assert (tree.path / "etc/munge/munge.key").exists()


@pytest.mark.parametrize("layer", [True, False])
def test_host_keys_are_noted_only_where_the_server_does_not_make_them(tree: Tree, layer: bool) -> None:
    tree.file(identities.RENEWAL)
    tree.file("etc/ssh/ssh_host_rsa_key")
    if layer:
        tree.file("usr/lib/systemd/system/ssh.service.d/debian-cloud.conf")
    assert tree.findings() == []
    assert not (tree.path / "etc/ssh/ssh_host_rsa_key").exists()
    assert (tree.path / identities.RENEWED).exists() is not layer


def test_a_certificate_goes_with_its_other_names(tree: Tree) -> None:
    tree.file(identities.RENEWAL)
    tree.file("etc/ssl/certs/ssl-cert-snakeoil.pem")
    tree.file("etc/ssl/certs/other.pem")
    for name, target in (("1.0", "ssl-cert-snakeoil.pem"), ("2.0", "other.pem"), ("3.0", "../nowhere")):
        (tree.path / "etc/ssl/certs" / name).symlink_to(target)
    assert tree.findings() == []
    assert sorted(path.name for path in (tree.path / "etc/ssl/certs").iterdir()) == ["2.0", "3.0", "other.pem"]


def test_a_link_is_not_followed(tree: Tree, tmp_path: Path) -> None:
    tree.file(identities.RENEWAL)
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (tree.path / "etc").mkdir()
    (tree.path / "etc/munge").symlink_to(tmp_path)
    (tree.path / "etc/key").symlink_to(outside)
    assert tree.findings() == []
    assert outside.read_text() == "mine"


@pytest.mark.parametrize(
    ("path", "target"), [("var/lib/debian-cloud", "out"), ("var/lib/debian-cloud/renew", "out/file"), ("var", "out")]
)
def test_what_is_noted_goes_by_no_link_of_a_package(tree: Tree, tmp_path: Path, path: str, target: str) -> None:
    """Otherwise, root of the building machine would write to the link's target."""
    (tmp_path / "out/lib/dpkg/info").mkdir(parents=True)
    (tmp_path / "out/lib/dpkg/status").touch()
    (tmp_path / "out/file").write_text("mine")
    tree.file(identities.RENEWAL)
    tree.file("etc/munge/munge.key")
    link = tree.path / path
    if path == "var":
        link.rename(tmp_path / "was")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(tmp_path / target)
    before = sorted(tmp_path.rglob("out/**/*"))
    if path == identities.RENEWED:
        assert tree.findings() == []
        assert not link.is_symlink()
    else:
        with pytest.raises(Error, match=f"/{identities.RENEWED} cannot be written"):
            tree.findings()
    assert sorted(tmp_path.rglob("out/**/*")) == before
    assert (tmp_path / "out/file").read_text() == "mine"


@pytest.mark.parametrize("path", ["var/backups/x", "usr/share/x/y", "srv/a\nb", "opt/munge.key"])
@pytest.mark.parametrize("hard", [True, False])
def test_a_copy_of_what_is_taken_out_is_found_by_any_name(tree: Tree, path: str, hard: bool) -> None:
    """Random bytes have no recognizable form, so a hard link or a readable copy is found only by its content."""
    content = bytes(range(128))
    tree.file(identities.RENEWAL)
    first = tree.file("etc/munge/munge.key", content)
    copy = tree.file(path, content)
    if hard:
        copy.unlink()
        copy.hardlink_to(first)
    tree.owned("x", "usr/share/x/y")
    shown = path.replace("\n", "\\x0a")
    (found,) = tree.findings()
    assert found.startswith(f"/{shown}")
    assert "a copy of a file that was removed" in found
    tree.file("etc/munge/munge.key", content)
    assert tree.findings(keep=(path,)) == []
    tree.file("etc/munge/munge.key", content)
    assert tree.findings(drop=(path,)) == []
    assert not copy.exists()


def test_a_copy_of_what_is_taken_out_is_found_in_the_initrd(tree: Tree) -> None:
    tree.file(identities.RENEWAL)
    tree.file("etc/munge/munge.key", bytes(range(128)))
    tree.file("boot/initrd.img-6.12-amd64", cpio(("conf/m", bytes(range(128)))))
    (found,) = tree.findings()
    assert found.startswith("/boot/initrd.img-6.12-amd64:conf/m: a copy of a file")


def test_what_is_short_may_be_the_same_by_chance(tree: Tree) -> None:
    tree.file(identities.RENEWAL)
    tree.file("etc/nvme/hostid", "1\n")
    tree.file("etc/x", "1\n")
    assert tree.findings() == []


def test_what_the_layer_cannot_make_is_not_left_to_it(tree: Tree) -> None:
    tree.file(identities.RENEWAL)
    tree.file("var/lib/NetworkManager/secret_key")
    assert tree.findings() == ["/var/lib/NetworkManager/secret_key (network-manager): a host's key"]
    # A link whose target exists only in the image's root.
    (tree.path / "usr/sbin").mkdir()
    (tree.path / "usr/sbin/NetworkManager").symlink_to("/nowhere/NetworkManager")
    assert tree.findings() == []
    assert not (tree.path / identities.RENEWED).exists()


def test_the_layer_makes_all_of_them_whatever_reads_its_input(tmp_path: Path) -> None:
    """A program that reads its standard input must not read the remaining names."""
    script = RENEW.read_text("utf-8").replace("/var/lib/debian-cloud/renew", str(tmp_path / "renew"))
    script = script.replace("/etc/", f"{tmp_path}/").replace("sync\n", "")
    (tmp_path / "renew").write_text("munge\nnsd\npostfix\n")
    (tmp_path / "bin").mkdir()
    for name in ("runuser", "nsd-control-setup", "newaliases"):
        (tmp_path / "bin" / name).write_text(f'#!/bin/sh\ncat >/dev/null\necho {name} >>"{tmp_path}/done"\n')
        (tmp_path / "bin" / name).chmod(0o755)
    path = f"{tmp_path}/bin:/usr/bin:/bin"
    subprocess.run(["sh", "-c", script], env={"PATH": path}, stdin=subprocess.DEVNULL, check=True, timeout=60)
    assert (tmp_path / "done").read_text() == "runuser\nnsd-control-setup\nnewaliases\n"
    assert not (tmp_path / "renew").exists()


def test_the_layer_knows_how_to_make_each_of_them() -> None:
    cases = set(re.findall(r"(?m)^        ([a-z0-9-]+)\)", RENEW.read_text("utf-8")))
    of_the_layer = {known.package for known in identities.IDENTITIES if known.renewed == identities.RENEWAL}
    assert cases == of_the_layer | {"openssh-server"}


# Decisions.


def test_a_decision_keeps_or_drops(tree: Tree) -> None:
    tree.file("etc/tripwire/site.key")
    tree.file("etc/tripwire/x-local.key")
    tree.file("srv/www.key", armoured("PRIVATE KEY"))
    assert len(tree.findings()) == 3
    assert tree.findings(keep=("srv/*",), drop=("etc/tripwire/x-*",)) == ["/etc/tripwire/site.key (tripwire): keys"]
    assert (tree.path / "srv/www.key").exists()
    assert not (tree.path / "etc/tripwire/x-local.key").exists()


def test_a_decision_is_one_on_the_copy_of_ucf_too(tree: Tree) -> None:
    tree.file("var/lib/ucf/cache/:etc:x:key.conf", mode=0o640)
    found = ["/var/lib/ucf/cache/:etc:x:key.conf: no package ships it, and other users may not read it"]
    assert tree.findings() == found
    assert tree.findings(keep=("etc/x/key.conf",)) == []
    assert tree.findings(drop=("etc/x/*",)) == []
    assert not (tree.path / "var/lib/ucf/cache/:etc:x:key.conf").exists()


# Files that are known by their content.


def armoured(kind: str, between: str = "\n") -> str:
    """An armour of a kind, without content."""
    return between.join([f"-----BEGIN {kind}-----", *["QUJD" * 16] * 4, f"-----END {kind}-----", ""])


def made(tmp: Path, words: str, *more: str) -> bytes:
    """Run a command, and return the file `out` that it writes, or its output."""
    done = subprocess.run([*words.split(), *more], cwd=tmp, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    return (tmp / "out").read_bytes() if (tmp / "out").exists() else done.stdout


def openpgp(*options: str) -> bytes:
    """What gpg prints for a new key; without options, the key file."""
    with gnupg.temporary_home() as home:
        gnupg.new_key(home, "x")
        return gnupg.gpg(home, *options) if options else next(home.rglob("*.key")).read_bytes()


def certified(tmp: Path) -> None:
    made(tmp, "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=x -keyout k -out c")


def stored(tmp: Path) -> bytes:
    certified(tmp)
    return made(tmp, "openssl pkcs12 -export -inkey k -in c -passout pass:x -out out")


def certificates(tmp: Path) -> bytes:
    certified(tmp)
    return made(tmp, "openssl pkcs12 -export -nokeys -in c -passout pass:x -out out")


EC: Final = "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256"
SECRETS: Final[dict[str, Callable[[Path], bytes]]] = {
    "PKCS #8": lambda tmp: made(tmp, EC),
    "PKCS #8, RSA": lambda tmp: made(tmp, "openssl genrsa 1024"),
    "PKCS #1": lambda tmp: made(tmp, "openssl genrsa -traditional 1024"),
    "SEC 1": lambda tmp: made(tmp, "openssl ecparam -name prime256v1 -genkey -noout"),
    "encrypted": lambda tmp: made(tmp, f"{EC} -aes128 -pass pass:x"),
    "PKCS #8, DER": lambda tmp: made(tmp, f"{EC} -outform DER"),
    "PKCS #8, DER, ed25519": lambda tmp: made(tmp, "openssl genpkey -algorithm ed25519 -outform DER"),
    "PKCS #8, DER, encrypted": lambda tmp: made(tmp, f"{EC} -outform DER -aes128 -pass pass:x"),
    "PKCS #1, DER": lambda tmp: made(tmp, "openssl rsa -traditional -outform DER -in", key(tmp, "genrsa 1024")),
    "SEC 1, DER": lambda tmp: made(tmp, "openssl ec -outform DER -in", key(tmp, "ecparam -name prime256v1 -genkey")),
    "PKCS #12": stored,
    "OpenSSH": lambda tmp: made(tmp, "ssh-keygen -q -t ed25519 -f out -N", ""),
    "OpenPGP, armoured": lambda _: openpgp("--armor", "--export-secret-keys"),
    "OpenPGP": lambda _: openpgp("--export-secret-keys"),
    "GnuPG": lambda _: openpgp(),
    "in JSON": lambda _: ('{"private_key": "' + armoured("PRIVATE KEY", "\\n") + '"}').encode(),
    "with CRLF": lambda _: armoured("RSA PRIVATE KEY", "\r\n").encode(),
    "behind much else": lambda _: b"#\n" * 100000 + armoured("EC PRIVATE KEY").encode(),
    "RFC 4716": lambda _: b"---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nComment: x\n" + b"QUJD" * 20,
    "PuTTY": lambda _: b"PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n",
    "OpenVPN": lambda _: b"#\n-----BEGIN OpenVPN Static key V1-----\n" + b"0123456789abcdef" * 2 + b"\n",
    "age": lambda _: (
        b"# created\nAGE-SECRET-KEY-1" + b"QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7LQPZRY9X8GF2TVDW0S3JN54KHCE"[:58]
    ),
    "WireGuard": lambda _: b"[Interface]\nPrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n",
    "TSIG": lambda _: b'key "rndc-key" {\n\talgorithm hmac-sha256;\n\tsecret "a2V5a2V5a2V5a2V5a2V5a2V5a2V5";\n};\n',
    "DNSSEC": lambda _: b"Private-key-format: v1.3\nAlgorithm: 13\n",
    "JWK": lambda _: b'{"kty":"EC","crv":"P-256","x":"a","d":"870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE"}',
    "signify": lambda _: b"untrusted comment: signify secret key\nRWRCSwAA\n",
    "Dropbear": lambda _: b"\0\0\0\x0bssh-ed25519\0\0\0@" + bytes(64),
    "Java": lambda _: b"\xfe\xed\xfe\xed\0\0\0\x02\0\0\0\x01\0\0\0\x01\0\x03key" + bytes(40),
}


def key(tmp: Path, how: str) -> str:
    (tmp / "pem").write_bytes(made(tmp, f"openssl {how}"))
    return "pem"


@pytest.mark.parametrize("kind", SECRETS)
@pytest.mark.parametrize(
    "path", ["etc/x", "usr/local/share/x", "opt/x/y", "home/debian/.ssh/id", "usr/lib/x/nobodys"]
)
def test_a_key_is_found_by_its_content(tree: Tree, tmp_path: Path, kind: str, path: str) -> None:
    content = SECRETS[kind](tmp_path)
    tree.file(path, content)
    (found,) = tree.findings()
    assert found.startswith(f"/{path}: ")
    assert re.search(r"\bkey\b", found)


HARD: Final[dict[str, tuple[str, bytes]]] = {
    "fields in one line": ("etc/x", b"-----BEGIN PRIVATE KEY-----\n" + b"A: " * 1000 + b"!\n"),
    "fields in many lines": ("etc/x", b"-----BEGIN PRIVATE KEY-----\n" + b"A: b\\n\n" * 1000 + b"!\n"),
    "blanks": ("etc/x", b"-----BEGIN PRIVATE KEY-----" + b" " * 2**20),
    "lines that begin": ("etc/x", b"-----BEGIN PRIVATE KEY-----" * 2**15),
    "capitals": ("etc/x", b"-----BEGIN " + b"A " * 2**19),
    "words": ("etc/x", b"x secret " * 2**16),
    "questions": ("var/cache/debconf/passwords.dat", b"Name: x\n" * 2**17),
}


@pytest.mark.parametrize("kind", HARD)
def test_a_search_ends(kind: str) -> None:
    """Tested in another process, because no signal interrupts a search; one of these once took hours."""
    path, content = HARD[kind]
    script = (
        "import sys; from debian_cloud.image import identities as i;"
        " print(i.secret(sys.argv[1], sys.stdin.buffer.read()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, path], input=content, capture_output=True, timeout=120, check=True
    )
    assert done.stdout == b"\n"


PUBLIC: Final[dict[str, Callable[[Path], bytes]]] = {
    "certificate": lambda tmp: (stored(tmp), (tmp / "c").read_bytes())[1],
    "certificates, PKCS #12": certificates,
    "public key": lambda tmp: made(tmp, "openssl pkey -pubout -in", key(tmp, "genrsa 1024")),
    "public key, DER": lambda tmp: made(tmp, "openssl pkey -pubout -outform DER -in", key(tmp, "genrsa 1024")),
    "public key, SSH": lambda tmp: (SECRETS["OpenSSH"](tmp), (tmp / "out.pub").read_bytes())[1],
    "public key, OpenPGP": lambda _: openpgp("--export"),
    "public key, OpenPGP, armoured": lambda _: openpgp("--armor", "--export"),
    "Diffie-Hellman": lambda tmp: made(tmp, "openssl genpkey -genparam -algorithm DH -pkeyopt group:ffdhe2048"),
    "certificates, Java": lambda _: b"\xfe\xed\xfe\xed\0\0\0\x02\0\0\0\x01\0\0\0\x02\0\x03key" + bytes(40),
    "a program": lambda _: b'MARK = "-----BEGIN PRIVATE KEY-----"\nif line == MARK: ...\n',
    "a manual": lambda _: b"The file begins with -----BEGIN RSA PRIVATE KEY----- and ends\nwith -----END-----.\n",
    "settings": lambda _: b"# PrivateKey = <base64>\nPrivateKeyFile = /etc/x\nsecret = x;\n",
    "numbers": lambda _: bytes(range(256)) * 8,
}


@pytest.mark.parametrize("kind", PUBLIC)
def test_what_is_public_is_none(tree: Tree, tmp_path: Path, kind: str) -> None:
    tree.file("etc/x", PUBLIC[kind](tmp_path))
    assert tree.findings() == []


@pytest.mark.parametrize("database", ["etc/shadow", "etc/gshadow", "etc/passwd"])
@pytest.mark.parametrize(
    "word",
    [
        "$y$j9T$abcdefgh$x",
        "$6$salt$abcdefghi",
        "!$6$salt$abcdefghi",
        "*$6$salt$abcdefghi",
        "$2b$10$abcdefgh",
        "aaBBccDDeeFF1",
    ],
)
def test_a_hashed_password_is_found(tree: Tree, database: str, word: str) -> None:
    tree.file(database, f"daemon:*:1:\nadmin:{word}:20000:0:99999:7:::\n", 0o640)
    assert tree.findings() == [f"/{database}: the password of admin, hashed"]


def test_an_account_without_a_password_has_none(tree: Tree) -> None:
    tree.file(
        "etc/shadow", "root:*:20000:\nother:!unprovisioned:1:\ndaemon:!:1:\nsystemd-network:!*:1:\nx:!!:2:\n", 0o640
    )
    tree.file("etc/passwd", "root:x:0:0:root:/root:/bin/bash\n")
    assert tree.findings() == []


def test_the_answer_to_a_question_for_a_password_is_found(tree: Tree) -> None:
    path = "var/cache/debconf/passwords.dat"
    tree.file(path, "Name: slapd/password1\nTemplate: slapd/password1\nOwners: slapd\n\n", 0o600)
    assert tree.findings() == []
    tree.file(path, "Name: x/password\nTemplate: x/password\nValue: secret\nOwners: x\nFlags: seen\n\n", 0o600)
    assert tree.findings() == [f"/{path}: the answer to the question x/password"]


# Files that no package ships.


def test_what_a_package_ships_is_public(tree: Tree) -> None:
    content = armoured("RSA PRIVATE KEY").encode()
    tree.owned("python3-x", "usr", "usr/lib", "usr/lib/x", "usr/lib/x/test.pem")
    tree.file("usr/lib/x/test.pem", content)
    assert tree.findings() == []
    # A copy that a maintainer script made outside /usr is the same file.
    tree.file("etc/x/default.pem", content, 0o600)
    assert len(tree.findings()) == 1
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    tree.file("var/lib/dpkg/info/python3-x.md5sums", f"{md5}  usr/lib/x/test.pem\n")
    assert tree.findings() == []


def test_a_conffile_is_public_until_a_maintainer_script_writes_into_it(tree: Tree) -> None:
    md5 = hashlib.md5(b"password =\n", usedforsecurity=False).hexdigest()
    tree.file("var/lib/dpkg/status", f"Package: x\nConffiles:\n /etc/x.conf {md5}\nDescription: x\n")
    tree.owned("x", "etc", "etc/x.conf")
    tree.file("etc/x.conf", "password =\n", 0o640)
    assert tree.findings() == []
    tree.file("etc/x.conf", "password = 1234\n", 0o640)
    assert tree.findings() == ["/etc/x.conf (x): no package ships it, and other users may not read it"]


def test_a_file_that_a_maintainer_script_closes_to_others_is_one(tree: Tree) -> None:
    tree.owned("alpha", "etc", "etc/alpha")
    tree.file("var/lib/dpkg/info/beta.postinst", "head -c 32 /dev/urandom >/var/lib/cookie\n", 0o755)
    tree.file("etc/alpha/token", mode=0o640)
    tree.file("etc/alpha/empty", "", 0o600)
    tree.file("etc/alpha/open")
    tree.file("var/lib/cookie", mode=0o600)
    closed = "no package ships it, and other users may not read it"
    assert tree.findings() == [f"/etc/alpha/token (alpha): {closed}", f"/var/lib/cookie (beta): {closed}"]


def test_a_folder_that_is_closed_closes_what_is_in_it_and_is_told_once(tree: Tree) -> None:
    tree.owned("alpha", "var/lib/alpha")
    for number in range(8):
        tree.file(f"var/lib/alpha/data/{number}")
    (tree.path / "var/lib/alpha/data").chmod(0o700)
    assert tree.findings() == [
        (
            "/var/lib/alpha/data/** (alpha): 8 files, such as /var/lib/alpha/data/0:"
            " no package ships it, and other users may not read it"
        )
    ]
    assert tree.findings(keep=("var/lib/alpha/data/**",)) == []


def test_what_is_known_to_be_generated_may_be_closed(tree: Tree) -> None:
    for path in ("etc/gshadow", "var/cache/debconf/passwords.dat", "usr/share/x/__pycache__/x.cpython-313.pyc"):
        tree.file(path, "x:*::\n", 0o600)
    assert tree.findings() == []


@pytest.mark.parametrize(
    ("path", "content", "found"),
    [
        ("etc/x/id", "0b39e2a8-77f1-4d26-a0f5-b2f3a1a5c1f0\n", True),
        ("var/lib/x/id", "nqn.2014-08.org.nvmexpress:uuid:0B39E2A8-77F1-4D26-A0F5-B2F3A1A5C1F0", True),
        ("etc/x/id", "00000000-0000-0000-0000-000000000000\n", False),
        ("etc/x/id", "c12a7328-f81f-11d2-ba4b-00a0c93ec93b\n", True),
        ("etc/fstab", "UUID=0b39e2a8-77f1-4d26-a0f5-b2f3a1a5c1f0 / ext4\n", False),
        ("usr/local/share/x", "0b39e2a8-77f1-4d26-a0f5-b2f3a1a5c1f0\n", False),
    ],
)
def test_an_id_that_was_drawn_by_lot_is_found(tree: Tree, path: str, content: str, found: bool) -> None:
    tree.file(path, content)
    assert [", and it has a random identifier" in line for line in tree.findings()] == [True] * found


@pytest.mark.parametrize(
    ("path", "found"), [("ucf.postinst", False), ("u:amd64.config", False), ("x.postinst", True)]
)
def test_an_id_of_a_source_is_in_a_control_file_of_a_package(tree: Tree, path: str, found: bool) -> None:
    """No .md5sums lists maintainer scripts; ucf's of Debian 12 have an arch-tag in a comment."""
    tree.owned("ucf", "usr/bin/ucf")
    tree.owned("u:amd64", "usr/share/u")
    tree.file(f"var/lib/dpkg/info/{path}", "#!/bin/sh\n# arch-tag: 5401e9ef-39cc-4aee-96a4-61dfb8f32cf7\n", 0o755)
    assert [", and it has a random identifier" in line for line in tree.findings()] == [True] * found


# The initrd.


def cpio(*members: tuple[str, bytes]) -> bytes:
    """An archive as the kernel reads it."""
    out = b""
    for path, content in (*members, ("TRAILER!!!", b"")):
        numbers = (1, 0o100644 if content else 0o040755, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path) + 1, 0)
        out += b"070701" + "".join(f"{number:08x}" for number in numbers).encode() + path.encode() + b"\0"
        out += bytes(-len(out) % 4) + content
        out += bytes(-len(out) % 4)
    return out


MICROCODE: Final = cpio(("kernel", b""), ("kernel/x86/microcode/AuthenticAMD.bin", bytes(range(256)) * 4)) + bytes(
    512
)
PLAIN: Final = cpio(("usr/lib/modules/x.ko.xz", b"\xfd7zXZ\0" * 99))
KEY: Final = ("etc/x/host.key", armoured("PRIVATE KEY").encode())
PACKED: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "lzma": lambda plain: lzma.compress(plain, lzma.FORMAT_ALONE),
    "bzip2": bz2.compress,
    "nothing": bytes,
}


@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize("before", [b"", MICROCODE, MICROCODE + PLAIN])
def test_a_key_in_the_initrd_is_found_behind_all_archives(tree: Tree, before: bytes, packing: str) -> None:
    inner = cpio(("etc", b""), ("etc/passwd", b"root:x:0:0::/root:/bin/sh\n")) + bytes(512) + cpio(KEY)
    tree.file("boot/initrd.img-6.12-amd64", before + PACKED[packing](inner))
    (found,) = tree.findings()
    assert found == "/boot/initrd.img-6.12-amd64:etc/x/host.key: a private key"
    assert tree.findings(keep=("boot/initrd.img-*:etc/x/host.key",)) == []
    tree.file("boot/initrd.img-6.12-amd64", before + PACKED[packing](cpio(("etc/x", b"x"))))
    assert tree.findings() == []


def test_an_identity_in_the_initrd_cannot_be_made_again(tree: Tree) -> None:
    tree.file(identities.RENEWAL)
    tree.file("boot/initrd.img-6.12-amd64", cpio(("./etc/nvme/hostnqn", b"nqn"), ("etc/ssh/ssh_host_rsa_key", b"x")))
    assert [line.partition(": ")[0] for line in tree.findings()] == [
        "/boot/initrd.img-6.12-amd64:etc/nvme/hostnqn (nvme-cli)",
        "/boot/initrd.img-6.12-amd64:etc/ssh/ssh_host_rsa_key (openssh-server)",
    ]


WHOLE: Final = MICROCODE + gzip.compress(cpio(KEY), mtime=0)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (WHOLE[: len(WHOLE) // 2], "it is truncated"),
        (WHOLE[:-20], "end-of-stream"),
        (b"not an initrd", "its data from byte 0 on is not an archive"),
        (MICROCODE + b"else", f"its data from byte {len(MICROCODE)} on is not an archive"),
        (gzip.compress(b"else", mtime=0), "its compressed content is not an archive"),
        (gzip.compress(b"", mtime=0), "its compressed content is empty"),
        (b"070701" + b"f" * 104 + b"x", "is damaged at byte 0"),
        (b"070701" + b"zzzzzzzz" * 13, "is damaged at byte 0"),
        (gzip.compress(PLAIN, mtime=0) + cpio(KEY), "Not a gzipped file"),
        (lzma.compress(PLAIN) + cpio(KEY), "Input format not supported"),
        (lzma.compress(PLAIN, lzma.FORMAT_ALONE) + cpio(KEY), "Memory usage limit exceeded"),
        (bz2.compress(PLAIN) + cpio(KEY), "Invalid data stream"),
        (cpio(("x", b"y"))[:-124] + b"070707" + b"0" * 120, "an archive in it is damaged"),
    ],
)
def test_an_initrd_that_cannot_be_searched_is_refused(tree: Tree, content: bytes, why: str) -> None:
    tree.file("boot/initrd.img-6.12-amd64", content)
    # The readable part of it was searched.
    *_, found = tree.findings()
    assert found.startswith("/boot/initrd.img-6.12-amd64: it cannot be searched: ")
    assert why in found


def test_an_initrd_without_end_is_not_read_to_it() -> None:
    class Endless(io.RawIOBase):
        """A file of 4 GiB by its header, and only zeros."""

        def __init__(self) -> None:
            self.given = 0
            self.first = cpio(("x", b"y"))[:112].replace(b"00000001" + b"0" * 32, b"ffffffff" + b"0" * 32)

        def read(self, size: int = -1) -> bytes:
            assert 0 <= size <= 2**20
            data, self.first = self.first[:size], self.first[size:]
            self.given += size
            return data + bytes(size - len(data))

    source = Endless()
    with pytest.raises(initrd.UnreadableError, match="more than"):
        list(initrd.members(source, lambda _, packed: packed, 16))  # type: ignore[arg-type]
    assert source.given < initrd.MOST + 2**21


def test_what_a_tool_unpacks_begins_where_the_file_was_read_to(tmp_path: Path) -> None:
    (tmp_path / "packed").write_bytes(b"head" * 3 + gzip.compress(b"tail"))
    with (tmp_path / "packed").open("rb") as source:
        assert source.read(4) == b"head"
        source.seek(12)
        with run.through(("gzip", "-dc"), source) as unpacked:
            assert unpacked.read() == b"tail"


def test_a_tool_of_the_tree_sees_nothing_of_the_machine(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package may have installed the tool, and the environment may contain a proxy's password."""
    called: list[tuple[str, ...]] = []

    @contextlib.contextmanager
    def through(argv: tuple[str, ...], _source: object) -> Iterator[io.BytesIO]:
        called.append(argv)
        yield io.BytesIO(cpio(KEY))

    monkeypatch.setattr(run, "through", through)
    tree.file("boot/initrd.img-6.12-amd64", b"\x28\xb5\x2f\xfd" + bytes(8))
    assert len(tree.findings()) == 1
    (argv,) = called
    assert argv[:5] == ("chroot", str(tree.path), "/usr/bin/env", "-i", "PATH=/usr/bin:/bin")


def test_what_a_tool_could_not_unpack_to_the_end_is_told(tmp_path: Path) -> None:
    """The tool unpacks what it can, and only its status shows that there is more."""
    (tmp_path / "packed").write_bytes(gzip.compress(b"tail") + cpio(KEY))
    with (tmp_path / "packed").open("rb") as source, run.through(("gzip", "-dc"), source) as unpacked:
        assert unpacked.read(4) == b"tail"
        with pytest.raises(OSError, match="command failed: gzip -dc"):
            unpacked.read()


# The command as it is called.


def test_the_verb_says_what_it_found_and_what_can_be_done(tree: Tree) -> None:
    for number in range(12):
        tree.file(f"etc/\x1b[2J{number}", armoured("PRIVATE KEY"))
    done = debian_cloud("scrub", tree.path)
    told = "all users of the image could read secrets that belong to one machine:\n  /etc/\\x1b[2J0: "
    refused(done, 1, told, "(and 2 more)", "Image-Drop-Secrets")
    assert "\x1b" not in done.stderr
    assert debian_cloud("scrub", "--keep=/etc/*", tree.path).stdout == ""
    assert debian_cloud("scrub", "--drop=/etc/*", tree.path).stdout.count("removed: /etc/\\x1b[2J") == 12


def test_a_build_ends_with_that_very_sentence(tree: Tree) -> None:
    tree.file("etc/munge/munge.key")
    step = plan.Run("leave out secrets and identities", ("debian-cloud", "scrub", tree.path.name), root=True)
    with pytest.raises(Error) as ended:
        run.carry_out((step,), tree.path.parent, Progress(1, quiet=True))
    said = "all users of the image could read secrets that belong to one machine"
    assert ended.value.message == f"{step.title}: {said}:\n  /etc/munge/munge.key (munge): the key of its realm"
    assert ended.value.hint.startswith("omit the package; or, ")
