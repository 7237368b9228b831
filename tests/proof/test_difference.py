# SPDX-License-Identifier: GPL-3.0-or-later
"""The differences between two images, from descriptions and from trees in memory."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import pytest

from debian_cloud.errors import Error
from debian_cloud.image import entries
from debian_cloud.image.buildinfo import Buildinfo
from debian_cloud.image.entries import Entry
from debian_cloud.image.resolution import Package
from debian_cloud.proof import difference
from debian_cloud.proof.difference import Description, Difference
from tests.samples import described

LOCK = Buildinfo.parse(described(), "x.buildinfo")


def of_packages(*packages: tuple[str, str] | tuple[str, str, str]) -> Description:
    found = tuple(Package(name, version, "amd64", 10, (*rest, "a")[0] * 64) for name, version, *rest in packages)
    return difference.of_buildinfo("x", replace(LOCK, packages=found))


def compared(old: tuple[str, str], new: tuple[str, str]) -> Difference:
    return difference.compare(of_packages(old), of_packages(new))


def test_nothing_differs_of_the_same() -> None:
    same = of_packages(("a", "1"), ("b", "1:2-3+b4"))
    found = difference.compare(same, same)
    assert found == Difference(same, same, (), (), (), (), (), None, sized=True)


def test_packages_come_and_go() -> None:
    found = difference.compare(of_packages(("b", "1"), ("c", "1")), of_packages(("c", "1"), ("a", "1")))
    assert [package.name for package in found.added] == ["a"]
    assert [package.name for package in found.removed] == ["b"]
    assert (found.upgraded, found.downgraded, found.replaced) == ((), (), ())


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("9", "10"),
        ("1.0~rc1", "1.0"),
        ("2.0", "1:0.5"),
        ("1-1", "1-1+b1"),
        ("1-1+b9", "1-1+b10"),
        ("1-1", "1-1+deb13u1"),
        ("1-2~deb13u1", "1-2"),
        ("1.0", "1.0a"),
        ("1.0a", "1.0+"),
    ],
)
def test_versions_are_ordered_as_dpkg_does(older: str, newer: str) -> None:
    up, down = compared(("a", older), ("a", newer)), compared(("a", newer), ("a", older))
    assert ([c.name for c in up.upgraded], up.downgraded) == (["a"], ())
    assert (down.upgraded, [c.name for c in down.downgraded]) == ((), ["a"])
    assert (up.upgraded[0].old.version, up.upgraded[0].new.version) == (older, newer)


def test_the_same_version_of_another_deb_is_told() -> None:
    found = difference.compare(of_packages(("a", "1", "a")), of_packages(("a", "1", "b")))
    assert [change.name for change in found.replaced] == ["a"]
    assert (found.upgraded, found.downgraded) == ((), ())


def test_images_of_two_architectures_are_not_compared() -> None:
    old = of_packages(("a", "1"))
    with pytest.raises(Error, match="x is for amd64, but y for arm64"):
        difference.compare(old, replace(old, title="y", architecture="arm64"))


@pytest.mark.parametrize("version", ["é", "1 2", "a:1", "9" * 5000])
def test_a_version_that_is_none_is_refused(version: str) -> None:
    with pytest.raises(Error, match="x has a package of invalid version"):
        of_packages(("a", version))


CHANGELOG = """\
tool (1.2-1+deb13u2) trixie-security; urgency=high

  * Fix a bug of 2026 (CVE-2026-12345, CVE-2025-9999; Closes: #2000, #1000).
  * closes: Bug#3000, 4000
  * See #5000, LP: #6000; CVE-2026-1 is none. CVE-2026-12345 again.

 -- Some One <one@example.org>  Fri, 20 Nov 2026 10:00:00 +0000

tool (1.2-1+deb13u1) trixie; urgency=medium

  * Second.

 -- Some One <one@example.org>  Fri, 20 Nov 2026 10:00:00 +0000

tool (1.2-1) unstable; urgency=medium

  * First.

 -- Some One <one@example.org>  Fri, 20 Nov 2026 10:00:00 +0000
"""


def versions(text: str, old: str, new: str) -> list[str]:
    return [entry.version for entry in difference.news(text, old, new)]


def test_the_entries_between_two_versions() -> None:
    assert versions(CHANGELOG, "1.2-1", "1.2-1+deb13u2") == ["1.2-1+deb13u2", "1.2-1+deb13u1"]
    assert versions(CHANGELOG, "1.2-1+deb13u1", "1.2-1+deb13u2") == ["1.2-1+deb13u2"]
    assert versions(CHANGELOG, "1.2-1", "1.2-1+deb13u1") == ["1.2-1+deb13u1"]
    assert versions(CHANGELOG, "1.0-1", "1.2-1") == ["1.2-1"]
    assert versions(CHANGELOG, "1.2-1+deb13u2", "1.2-1+deb13u2") == []


def test_where_the_old_version_is_not_listed_versions_decide() -> None:
    assert versions(CHANGELOG, "1.2-1+b3", "1.2-1+deb13u1") == ["1.2-1+deb13u1"]
    assert versions(CHANGELOG, "1.2-1+deb12u7", "1.2-1+deb13u2") == ["1.2-1+deb13u2", "1.2-1+deb13u1"]
    assert versions(CHANGELOG, "1.2-1+deb13u1~x", "1.2-1+deb13u2") == ["1.2-1+deb13u2", "1.2-1+deb13u1"]


def test_what_stands_above_the_old_entry_came_after_it_whatever_its_version() -> None:
    """Entries above the old one are newer, whatever their version: a fix may have a lower version than older ones."""
    turned = "tool (1.1-9) x; urgency=low\n\n  * Later.\n\n" + CHANGELOG
    assert versions(turned, "1.2-1+deb13u2", "1.3-1") == ["1.1-9"]


def test_cves_and_bugs_are_taken_from_an_entry() -> None:
    (entry,) = difference.news(CHANGELOG, "1.2-1+deb13u1", "1.2-1+deb13u2")
    assert entry.cves == ("CVE-2025-9999", "CVE-2026-12345")
    assert entry.bugs == (1000, 2000, 3000, 4000)
    assert entry.suite == "trixie-security"
    assert entry.text.startswith("  * Fix a bug of 2026")
    assert "Some One" not in entry.text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        "nothing here",
        "tool (1.2",
        "tool (é) x; urgency=low\n  * a\n",
        "tool (" + "9" * 5000 + ") x;\n  * a\n",
    ],
)
def test_what_is_no_changelog_has_no_entries(text: str) -> None:
    assert versions(text, "0", "9") == []


# A tree in memory, as dpkg leaves it.


@dataclass
class Tree:
    """Entries with their contents, and dpkg's database about them."""

    files: dict[str, tuple[Entry, bytes]] = field(default_factory=dict)
    stanzas: list[str] = field(default_factory=list)

    def add(self, path: str, content: bytes = b"", **values: object) -> Tree:
        entry = Entry(path, entries.FILE, 0o644, 0, 0, size=len(content), sha256=f"{zlib.crc32(content):064x}")
        self.files[path] = (replace(entry, **values), content)
        return self

    def link(self, path: str, target: str) -> Tree:
        return self.add(path, kind=entries.SYMLINK, target=target, sha256="", size=0)

    def folder(self, path: str) -> Tree:
        return self.add(path, kind=entries.DIRECTORY, mode=0o755, sha256="")

    def package(
        self,
        name: str,
        version: str,
        paths: Iterable[str] = (),
        *,
        source: str = "",
        multiarch: str = "",
        status: str = "",
    ) -> Tree:
        said = f"Package: {name}\nStatus: {status or 'install ok installed'}\nArchitecture: {multiarch or 'amd64'}\n"
        self.stanzas.append(said + (f"Source: {source}\n" if source else "") + f"Version: {version}\n")
        suffix = f":{multiarch}" if multiarch else ""
        listed = "".join(f"{path}\n" for path in ("/.", *paths))
        return self.add(f"var/lib/dpkg/info/{name}{suffix}.list", listed.encode())

    def changelog(self, package: str, text: str, name: str = "changelog.Debian.gz") -> Tree:
        for folder in ("usr", "usr/share", "usr/share/doc", f"usr/share/doc/{package}"):
            self.folder(folder)
        return self.add(f"usr/share/doc/{package}/{name}", gzip.compress(text.encode(), mtime=0))

    def content(self, path: str) -> bytes:
        return self.files[path][1]

    def described(self, title: str = "x") -> Description:
        self.add("var/lib/dpkg/status", "\n".join(self.stanzas).encode("utf-8", "surrogateescape"))
        return difference.of_image(title, (entry for entry, _ in self.files.values()), self.content)


def system() -> Tree:
    return Tree().package("dpkg", "1.22.21")


def between(old: Tree, new: Tree) -> Difference:
    found = difference.compare(old.described("old"), new.described("new"))
    return difference.with_changelogs(found, old.content, new.content)


def test_an_image_s_packages_are_those_that_dpkg_has_installed() -> None:
    tree = system().package("a", "1", ["/usr/bin/a"]).add("usr/bin/a", b"12345").add("etc/new", b"1")
    tree.package("gone", "1", status="deinstall ok config-files").package("held", "1", status="hold ok installed")
    found = tree.described()
    assert sorted(found.packages) == ["a", "dpkg", "held"]
    assert found.architecture == "amd64"
    assert found.packages["a"].size == 5
    assert found.owners is not None
    assert found.owners["usr/bin/a"] == "a"
    assert "etc/new" not in found.owners


def test_a_package_of_two_architectures_is_two() -> None:
    tree = system().package("libc6", "1", ["/usr/lib/a"], multiarch="amd64")
    tree.package("libc6", "1", ["/usr/lib/i"], multiarch="i386").add("usr/lib/i", b"123").add("usr/lib/a", b"12")
    found = tree.described()
    assert {name: p.size for name, p in found.packages.items()} == {"dpkg": 0, "libc6:amd64": 2, "libc6:i386": 3}


def test_files_are_told_by_package() -> None:
    old = system().package("a", "1", ["/usr/bin/a", "/usr/bin/b"]).package("z", "1", ["/usr/bin/z"])
    old.add("usr/bin/a", b"1").add("usr/bin/b", b"1").add("usr/bin/z", b"1", mtime=1).add("etc/made", b"1")
    new = system().package("a", "2", ["/usr/bin/a", "/usr/bin/c"]).package("z", "1", ["/usr/bin/z"])
    new.add("usr/bin/a", b"123").add("usr/bin/c", b"12345").add("usr/bin/z", b"1", mtime=2).add("etc/other", b"1")
    found = between(old, new).files
    assert found is not None
    a = next(files for files in found if files.package == "a")
    assert (a.added, a.removed, a.changed) == (("usr/bin/c",), ("usr/bin/b",), {"usr/bin/a": ("content",)})
    assert (a.old_size, a.new_size) == (2, 8)
    generated = next(files for files in found if files.package == difference.GENERATED)
    assert (generated.added, generated.removed) == (("etc/other",), ("etc/made",))
    assert set(generated.changed) == {"var/lib/dpkg/info/a.list", "var/lib/dpkg/status"}
    assert [files.package for files in found] == ["", "a"]


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"mode": 0o4755}, ("mode",)),
        ({"uid": 1}, ("owner",)),
        ({"gid": 1, "mode": 0o600}, ("mode", "owner")),
        ({"xattrs": (("security.capability", b"\1"),)}, ("xattrs",)),
        ({"kind": entries.SYMLINK, "target": "b"}, ("kind",)),
        ({"sha256": "f" * 64}, ("content",)),
        ({"mtime": 7}, None),
        ({"inode": 7}, None),
    ],
)
def test_what_of_a_file_differs(values: dict[str, object], what: tuple[str, ...] | None) -> None:
    found = between(system().add("x", b"1"), system().add("x", b"1", **values)).files
    assert found is not None
    assert [files.changed for files in found] == ([{"x": what}] if what else [])


def test_hard_links_weigh_once() -> None:
    tree = system().package("a", "1", ["/usr/a", "/usr/b"])
    tree.add("usr/a", b"123", inode=9).add("usr/b", b"123", inode=9)
    assert tree.described().packages["a"].size == 3
    tree.add("usr/b", b"123", inode=0).add("usr/a", b"123", inode=0)
    assert tree.described().packages["a"].size == 6


def test_paths_lead_through_the_merged_usr() -> None:
    tree = system().package("a", "1", ["/lib/x", "/lib"]).link("lib", "usr/lib").add("usr/lib/x", b"1")
    owners = tree.described().owners
    assert owners is not None
    assert (owners["usr/lib/x"], owners["lib"]) == ("a", "a")


def test_a_diverted_file_is_its_package_s_where_it_lies() -> None:
    tree = system().package("a", "1", ["/usr/bin/t"]).package("b", "1", ["/usr/bin/t"])
    tree.add("var/lib/dpkg/diversions", b"/usr/bin/t\n/usr/bin/t.old\nb\n")
    owners = tree.described().owners
    assert owners is not None
    assert (owners["usr/bin/t"], owners["usr/bin/t.old"]) == ("b", "a")


# Changelogs in trees.


def upgraded(old: str, new: str, text: str = CHANGELOG, **names: str) -> Difference:
    before = system().package("tool", old, ["/usr/bin/tool"])
    return between(before, system().package("tool", new, ["/usr/bin/tool"]).changelog("tool", text, **names))


def test_an_upgrade_brings_its_changelog() -> None:
    found = upgraded("1.2-1", "1.2-1+deb13u2")
    (log,) = found.changelogs
    assert (log.source, log.packages, log.lost) == ("tool", ("tool",), False)
    assert [entry.version for entry in log.news] == ["1.2-1+deb13u2", "1.2-1+deb13u1"]
    assert difference.named(found.changelogs, lost=False) == (
        ("CVE-2025-9999", "CVE-2026-12345"),
        (1000, 2000, 3000, 4000),
    )
    assert difference.named(found.changelogs, lost=True) == ((), ())


@pytest.mark.parametrize("name", ["changelog.Debian.gz", "changelog.gz", "changelog.Debian.amd64.gz"])
def test_a_changelog_has_several_names(name: str) -> None:
    (log,) = upgraded("1.2-1", "1.2-1+deb13u1", name=name).changelogs
    assert [entry.version for entry in log.news] == ["1.2-1+deb13u1"]


def test_a_rebuild_has_an_entry_of_its_own() -> None:
    rebuild = "tool (1.2-1+b2) sid; urgency=low, binary-only=yes\n\n  * Binary-only non-maintainer upload.\n"
    before = system().package("tool", "1.2-1+b1", source="tool (1.2-1)")
    after = system().package("tool", "1.2-1+b2", source="tool (1.2-1)")
    after.changelog("tool", CHANGELOG[CHANGELOG.index("tool (1.2-1) ") :])
    after.changelog("tool", rebuild, "changelog.Debian.amd64.gz")
    (log,) = between(before, after).changelogs
    assert [entry.version for entry in log.news] == ["1.2-1+b2"]
    assert "Binary-only" in log.news[0].text


def test_after_a_rebuild_the_next_version_is_all_there_is() -> None:
    before = system().package("tool", "1.2-1+b1", source="tool (1.2-1)")
    (log,) = between(before, system().package("tool", "1.2-1+deb13u1").changelog("tool", CHANGELOG)).changelogs
    assert [entry.version for entry in log.news] == ["1.2-1+deb13u1"]


def test_a_package_s_version_may_be_another_than_its_source_s() -> None:
    before = system().package("bin", "5:1.2-1", source="tool (1.2-1)")
    after = system().package("bin", "5:1.2-1+deb13u2", source="tool (1.2-1+deb13u2)").changelog("bin", CHANGELOG)
    (log,) = between(before, after).changelogs
    assert (log.source, log.old, log.new) == ("tool", "1.2-1", "1.2-1+deb13u2")
    assert len(log.news) == 2


def test_packages_of_one_source_share_a_changelog_and_a_folder() -> None:
    def tree(version: str) -> Tree:
        one = system().package("a", version, source="tool").package("b", version, source="tool")
        return one.package("c", version, source="tool")

    after = tree("1.2-1+deb13u1").changelog("c", CHANGELOG).link("usr/share/doc/a", "c")
    after.link("usr/share/doc/b", "/usr/share/../share/doc/./a")
    for name in ("a", "b", "c"):
        path = difference._resolved(
            {p: e for p, (e, _) in after.files.items()}, f"usr/share/doc/{name}/changelog.Debian.gz"
        )
        assert path == "usr/share/doc/c/changelog.Debian.gz", name
    (log,) = between(tree("1.2-1"), after).changelogs
    assert log.packages == ("a", "b", "c")
    assert [entry.version for entry in log.news] == ["1.2-1+deb13u1"]


@pytest.mark.parametrize("target", ["tool", "/usr/share/doc/tool", "../../../../../etc", "nowhere", ""])
def test_links_lead_nowhere_else(target: str) -> None:
    before = system().package("tool", "1.2-1")
    after = system().package("tool", "1.2-1+deb13u1").changelog("other", CHANGELOG)
    after.link("usr/share/doc/tool", target).add("etc/changelog", b"")
    (log,) = between(before, after).changelogs
    assert log.news == ()


def test_a_kernel_s_package_has_another_name_each_time() -> None:
    before = system().package("linux-image-1", "1.2-1", source="tool")
    after = system().package("linux-image-2", "1.2-1+deb13u1", source="tool").changelog("linux-image-2", CHANGELOG)
    found = between(before, after)
    assert ([p.name for p in found.added], [p.name for p in found.removed]) == (["linux-image-2"], ["linux-image-1"])
    assert [entry.version for entry in found.changelogs[0].news] == ["1.2-1+deb13u1"]


def test_a_downgrade_tells_what_is_lost() -> None:
    before = system().package("tool", "1.2-1+deb13u2").changelog("tool", CHANGELOG)
    found = between(before, system().package("tool", "1.2-1+deb13u1"))
    assert found.changelogs[0].lost
    assert difference.named(found.changelogs, lost=True)[0] == ("CVE-2025-9999", "CVE-2026-12345")
    assert difference.named(found.changelogs, lost=False) == ((), ())


def test_a_changelog_that_cannot_be_read_is_none() -> None:
    before = system().package("tool", "1.2-1")
    for data in (b"\x1f\x8bnot gzip", gzip.compress(CHANGELOG.encode())[:30], b"\xff\xfe", b""):
        after = system().package("tool", "1.2-1+deb13u1").changelog("tool", CHANGELOG)
        after.add("usr/share/doc/tool/changelog.Debian.gz", data)
        (log,) = between(before, after).changelogs
        assert log.news == ()


def test_a_changelog_is_no_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(difference, "_LIMIT", 2**16)
    text = CHANGELOG + "  * x\n" * 2**18
    (log,) = upgraded("1.2-1", "1.2-1+deb13u1", text).changelogs
    assert len(log.news) == 1
    read = list(difference._texts(*_sized(text)))
    assert [len(part) for part in read] == [2**16]


def _sized(text: str) -> tuple[Description, difference.Sourced, Callable[[str], bytes]]:
    tree = system().package("tool", "1").changelog("tool", text)
    described_ = tree.described()
    return described_, described_.packages["tool"], tree.content


# States that no Debian system is in.


def without(path: str) -> Callable[[Tree], None]:
    def damage(tree: Tree) -> None:
        del tree.files[path]

    return damage


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda t: t.stanzas.clear(), "has no package dpkg"),
        (lambda t: t.stanzas.append("Package: x\n"), "has a damaged var/lib/dpkg/status"),
        (lambda t: t.stanzas.append("Version: 1\n"), "has a damaged var/lib/dpkg/status"),
        (lambda t: t.package("x", "é"), "has a damaged var/lib/dpkg/status"),
        (lambda t: t.package("x", "1", source="a (é)"), "has a damaged var/lib/dpkg/status"),
        (lambda t: t.package("x\x1b[2J", "1"), "has a damaged var/lib/dpkg/status"),
        (lambda t: t.package("x", "1", multiarch="\x1b[2J"), "has a damaged var/lib/dpkg/status"),
        (lambda t: t.stanzas.append("Package: \udcff\n"), "has a damaged var/lib/dpkg/status"),
        (lambda t: t.package("x", "1", source="a b c"), "has a damaged var/lib/dpkg/status"),
        (without("var/lib/dpkg/info/dpkg.list"), "has no list of the files of dpkg"),
        (lambda t: t.folder("var/lib/dpkg/info/dpkg.list"), "has a damaged var/lib/dpkg/info/dpkg.list"),
        (lambda t: t.link("var/lib/dpkg/info/dpkg.list", "/etc/passwd"), "has a damaged var/lib/dpkg/info/dpkg.list"),
        (lambda t: t.add("var/lib/dpkg/diversions", b"", size=2**40), "has a damaged var/lib/dpkg/diversions"),
    ],
)
def test_a_damaged_database_is_refused(damage: Callable[[Tree], object], said: str) -> None:
    tree = system()
    damage(tree)
    with pytest.raises(Error, match=said):
        tree.described()


def test_what_has_no_dpkg_is_no_image() -> None:
    with pytest.raises(Error, match="x has no var/lib/dpkg/status"):
        difference.of_image("x", (), lambda _: b"")


def test_an_image_and_a_buildinfo_have_packages_in_common() -> None:
    found = difference.compare(of_packages(("dpkg", "1")), system().described())
    assert [change.name for change in found.upgraded] == ["dpkg"]
    assert found.files is None
    assert not found.sized
