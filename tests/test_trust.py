# SPDX-License-Identifier: GPL-3.0-or-later
"""The builder verifies by itself: a less strict apt configuration on the host does not weaken that."""

from __future__ import annotations

import ast
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from debian_cloud.errors import Error
from debian_cloud.image import sources
from tests.command import debian_cloud, refused
from tests.conftest import ROOT
from tests.pristine import archive, pristine
from tests.throwaway import Archive, sha256

__all__ = ["archive", "pristine"]

PACKAGE = ROOT / "src" / "debian_cloud"

STANZAS = {
    "text/deb822.py": "the parser itself",
    "image/closure.py": "of a closure's list of files, by sign.text, which are fetched: `verify` believes none",
    "archive/images.py": "reprepro's database, and the records that the archive keeps itself",
    "build/subjects.py": "of a .changes that a person checks before he signs it, by sign.text",
    "packages/debs.py": "control files of a package or of a source tree, in which nothing is signed",
    "proof/difference.py": "dpkg's status in an image",
    "packages/releases.py": "release files, by sign.verified",
    "packages/cache.py": "the sources of a private apt, to be shown, in which nothing is signed",
    "packages/evidence.py": "stanzas of indexes that release files list",
    "image/index.py": "indexes of images, and records",
    "archive/lifecycle.py": "the archive's own conf/releases",
    "image/buildinfo.py": "a .buildinfo, by sign.verified or sign.text; what a plan wrote for its own last step",
    "packages/manifest.py": "the control file of a package of a known hash",
    "packages/own.py": "the user's own .sources files, in which nothing is signed",
    "archive/checked.py": "the archive's own texts of what it signed; indexes that those list",
    "archive/served.py": "the archive's own texts of what it signed, and conf/distributions",
    "image/sources.py": "a .sources file that a person gives, in which nothing is signed",
    "image/staleness.py": "an index of images",
    "machines/target.py": "a user's own .target file, in which nothing is signed",
    "archive/upload.py": "fields of an upload, by sign.verified; of files that it vouches for, by openpgp.cleartext",
}
"""Modules that parse stanzas, and what the stanzas are."""
BYTES = {
    "archive/incoming.py": "an upload's, before its signature is verified; openpgp.cleartext reads what they say",
    "mirror/follow.py": "the mirror's own, whose hash is compared",
    "mirror/outside.py": "a mirror's, which are only fetched; releases.verified reads them",
    "archive/cosignatures.py": "the archive's own, compared and copied; openpgp.cleartext reads what they say",
}
"""Modules that read a signed file without `sign`, and why they do not interpret its content."""
IN_SHELL = {
    r"grep -v -e '\\\.changes\$'": "names of files",
    r"awk -v path=\"images/": "rows of the state, with the name of a file in it",
    r"awk '\$3 ~ /\^images": "names of files that a verified index lists",
    r"awk -v place=\"\$place/\" -v dists=\"\$\{path%InRelease\}\"": "what gpgv gave out as signed, and its name",
}
"""Lines of shell with the name of a signed file and a text tool, and why the tool does not read that file."""
SIGNED = re.compile(r"InRelease|\.(changes|buildinfo|dsc|asc)\b")
SIGNED_IN_PYTHON = re.compile(rf"{SIGNED.pattern}|buildinfo|changes|statement")


def calls(path: Path) -> Iterator[tuple[str, str]]:
    """Each call in a module: the name of what is called, and the complete call."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), ast.unparse(node)


def test_what_is_signed_is_read_by_one_reader() -> None:
    """A signed file is read only through `sign`; any other reader would also read what is not signed."""
    parse, other, marks, tools = set(), set(), set(), set()
    for path in PACKAGE.rglob("*.py"):
        name = str(path.relative_to(PACKAGE))
        for function, whole in calls(path):
            if re.search(r"\bdeb822\.(parse|canonical|Deb822)", function):
                parse.add(name)
            reads = re.search(r"(^|\.)(read_text|read_bytes|open|text|_text|fdopen)$", function)
            if reads and SIGNED_IN_PYTHON.search(whole) and not function.startswith("sign."):
                other.add(name)
            if re.search(r"'gpgv?'", whole) and function.startswith("run."):
                tools.add(name)
        if re.search(r"PGP (SIGNED|SIGNATURE)|openpgp\.cleartext", path.read_text("utf-8")):
            marks.add(name)
    assert parse == {*STANZAS}
    assert other <= {*BYTES}
    assert marks == {"text/openpgp.py", "host/sign.py", "archive/cosignatures.py", "archive/incoming.py"}
    # archive/overview.py lists keys with gpg, and verifies nothing with it.
    assert tools == {"host/sign.py", "archive/overview.py"}


def test_no_shell_reads_what_is_signed() -> None:
    found = []
    for path in (ROOT / "archive").rglob("*"):
        if not path.is_file() or not path.read_bytes().startswith(b"#!/bin/sh"):
            continue
        for line in path.read_text("utf-8").splitlines():
            code = re.sub(r"(^|\s)#.*", "", line)
            if re.search(r"\b(sed|awk|grep|cut|head|tail|field)\b", code) and SIGNED.search(code):
                found += [f"{path.name}: {line}"] if not any(re.search(known, code) for known in IN_SHELL) else []
    assert found == []


LOOSE = """\
Acquire::Check-Valid-Until "false";
Acquire::Check-Date "false";
Acquire::Min-ValidTime "999999999";
Acquire::Max-FutureTime "999999999";
Acquire::AllowInsecureRepositories "true";
Acquire::AllowWeakRepositories "true";
Acquire::AllowDowngradeToInsecureRepositories "true";
APT::Get::AllowUnauthenticated "true";
"""


@pytest.fixture
def loose(tmp_path: Path) -> str:
    path = tmp_path / "loose.conf"
    path.write_text(LOOSE)
    return str(path)


def test_expiry_holds(archive: Archive, loose: str) -> None:
    text = re.sub("^Valid-Until: .*", "Valid-Until: Sat, 01 Jan 2022 00:00:00 UTC", archive.signed_text(), flags=re.M)
    archive.sign(re.sub("^Date: .*", "Date: Fri, 31 Dec 2021 00:00:00 UTC", text, flags=re.M))
    refused(debian_cloud("show", "fine", *archive.sources, APT_CONFIG=loose), 1, "expired")


def test_a_release_of_the_future_is_refused(archive: Archive, loose: str) -> None:
    text = re.sub("^Date: .*", "Date: Thu, 01 Jan 2099 00:00:00 UTC", archive.signed_text(), flags=re.M)
    archive.sign(re.sub("^Valid-Until: .*", "Valid-Until: Fri, 02 Jan 2099 00:00:00 UTC", text, flags=re.M))
    refused(debian_cloud("show", "fine", *archive.sources, APT_CONFIG=loose), 1, "not valid yet")


def test_an_unsigned_release_is_refused(archive: Archive, loose: str) -> None:
    archive.release.write_text(archive.signed_text())
    archive.release.with_name("Release.gpg").unlink()
    refused(debian_cloud("show", "fine", *archive.sources, APT_CONFIG=loose), 1, "apt-get failed")


def test_a_release_with_a_detached_signature_will_do(archive: Archive) -> None:
    archive.release.unlink()
    done = debian_cloud("show", "fine", *archive.sources)
    assert done.returncode == 0, done.stderr


def test_the_archive_replaces_no_package_of_debian(archive: Archive, tmp_path: Path) -> None:
    tree = tmp_path / "libc6"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        "Package: libc6\nVersion: 999\nArchitecture: amd64\nSection: libs\nPriority: optional\n"
        "Maintainer: Nobody <nobody@localhost>\nDescription: not Debian's\n"
    )
    deb = tmp_path / "libc6_999_amd64.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", tree, deb], stdout=subprocess.DEVNULL, check=True)
    archive.add(deb)
    done = debian_cloud("build", "fine", *archive.sources, "--output", tmp_path / "out")
    refused(done, 1, "the archive provides libc6 999, which is Debian's package")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def trusting(tmp_path: Path) -> str:
    """Configure an apt that trusts an unsigned mirror, which claims to be Debian, and return its APT_CONFIG."""
    root = tmp_path / "apt"
    mirror = root / "mirror"
    index = mirror / "dists" / "trixie" / "main" / "binary-amd64" / "Packages"
    index.parent.mkdir(parents=True)
    evil = ("Package: evil", "Version: 1", "Architecture: all", "Maintainer: x", "Filename: x", f"SHA256: {'0' * 64}")
    index.write_text("".join(f"{line}\n" for line in (*evil, "Size: 1", "Description: x", "")))
    content = index.read_bytes()
    (mirror / "dists" / "trixie" / "Release").write_text(
        "Origin: Debian\nLabel: Debian\nSuite: stable\nCodename: trixie\nArchitectures: amd64\nComponents: main\n"
        "Date: Sat, 21 Nov 2026 00:00:00 UTC\n"
        f"SHA256:\n {sha256(content)} {len(content)} main/binary-amd64/Packages\n"
    )
    (root / "lists" / "partial").mkdir(parents=True)
    security = next(t.uri for t in sources.targets(answer()) if t.label == "Debian-Security")
    key = "/usr/share/keyrings/debian-archive-keyring.gpg"
    (root / "sources.list").write_text(
        f"deb [trusted=yes] file:{mirror} trixie main\ndeb [signed-by={key}] {security} bookworm-security main\n"
    )
    conf = root / "apt.conf"
    conf.write_text(
        f'Dir::State::lists "{root}/lists";\nDir::Etc::SourceList "{root}/sources.list";\n'
        f'Dir::Etc::SourceParts "/dev/null";\nAPT::Sandbox::User "root";\n'
    )
    subprocess.run(["apt-get", "-q", "update"], env={**os.environ, "APT_CONFIG": str(conf)}, check=True)
    known = sources.targets(answer(str(conf)))
    assert any(t.origin == "Debian" and t.trusted == "yes" and str(mirror) in t.uri for t in known)
    return str(conf)


def answer(conf: str = "/dev/null") -> str:
    """What the machine's apt says about its indexes."""
    env = {**os.environ, "APT_CONFIG": conf}
    return subprocess.run(sources.INDEXTARGETS, env=env, capture_output=True, text=True, check=True).stdout


def test_a_source_that_the_machine_trusts_is_not_trusted(archive: Archive, trusting: str, tmp_path: Path) -> None:
    """What goes into an image must be signed: trusted=yes is for the machine itself (sources.list(5))."""
    more = ("--add", "evil", "--output", tmp_path / "out")
    done = debian_cloud("build", "fine", *more, *archive.sources, APT_CONFIG=trusting)
    refused(done, 1, "apt-get failed", "is not signed")
    assert not (tmp_path / "out").exists()


def target(uri: str, trusted: str = "yes") -> sources.Target:
    return sources.Target("Images", "", "", "trixie", uri, "/x", trusted)


@pytest.mark.parametrize("end", ["\u2028", "\x85", "\x0c", "\x1c", "\r"])
def test_an_archive_s_name_does_not_begin_a_line_of_another_s(end: str) -> None:
    """Origin, printed as the archive gives it, may contain any character that ends a line in Python but LF."""
    forged = f"Packages|a{end}Images|b|b|trixie|http://good|/x|yes|/x:1{end}c|d|x|http://bad|/x|no"
    assert sources.targets(f"{forged}\nImages|a{end}|b|trixie|http://c|/x|yes|/x:1\n") == (
        sources.Target("Images", f"a{end}", "b", "trixie", "http://c", "/x", "yes", "/x:1"),
    )


def test_an_index_of_images_that_apt_has_not_verified_does_not_count() -> None:
    assert sources.verified_images([target("http://a", "no")]) == ()
    with pytest.raises(Error, match="knows no archive"):
        sources.archive([target("http://a", "no")], "trixie")


def test_of_several_archives_none_is_taken_by_chance() -> None:
    with pytest.raises(Error, match=r"knows several archives.*http://a, http://b"):
        sources.archive([target("http://b"), target("http://a")], "trixie")
    assert sources.archive([target("http://a"), target("http://a")], "trixie").uri == "http://a"


def test_an_image_without_security_updates_is_not_made() -> None:
    known = [sources.Target("Packages", "Debian", "Debian", "bookworm", "http://d", "/x", "yes")]
    with pytest.raises(Error, match="no mirror of trixie's security updates is known"):
        sources.debian(known, "trixie")
    assert [s.suites for s in sources.debian(known, "trixie", security_mirror="http://s")] == [
        ("trixie", "trixie-updates"),
        ("trixie-security",),
    ]
    assert [s.suites for s in sources.debian(known, "sid")] == [("sid",)]
