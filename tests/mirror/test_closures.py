# SPDX-License-Identifier: GPL-3.0-or-later
"""A mirror that is asked to carries closures: those in the archive's signed list, verified."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from debian_cloud.image import closure
from tests.gnupg import remove
from tests.mirror.tree import Archive, Key, Mirror, sha

PLACES = ("closures/trixie/ec2/amd64/20261119.0", "closures/trixie/ec2/amd64/20261120.0")
OWN = "evidence/1/InRelease"


def add_closure(archive: Archive, place: str, *, named: str | None = None) -> Path:
    """Make a closure as the step `closure` does: Debian's evidence, the archive's own, and two packages."""
    folder = archive.root / place
    for name in ("pool/a_1.0~rc1+b1_amd64.deb", "pool/b_1_all.deb", "evidence/0/InRelease", OWN):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{name} of {place}\n")
    (folder / "evidence/0/main_binary-amd64_Packages.xz").write_bytes(b"\xfd7zXZ" * 9)
    sign(archive.key, folder / OWN, "Suite: trixie\n")
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    listed = {name: None if name == OWN else (sha(folder / name), (folder / name).stat().st_size) for name in files}
    packages = folder / closure.packages_path("trixie", "amd64")
    packages.parent.mkdir(parents=True)
    packages.write_text("Package: a\n")
    text = closure.release_text("trixie", "amd64", 1795224967, "Package: a\n", named or place, listed)
    if named == "":
        text = re.sub("(?s)Closure: .*(?=SHA256:)", "", text)
    sign(archive.key, folder / "dists/trixie/InRelease", text)
    return folder


def sign(key: Key, file: Path, text: str) -> None:
    file.unlink(missing_ok=True)
    plain = file.with_name("plain")
    plain.write_text(text)
    key.gpg("--output", str(file), "--clearsign", str(plain))
    plain.unlink()


def carried(mirror: Mirror) -> dict[str, str]:
    return {path: digest for path, digest in mirror.shown().items() if path.startswith("closures/")}


def served(archive: Archive, *places: str) -> dict[str, str]:
    return {
        str(path.relative_to(archive.root)): sha(path)
        for place in places
        for path in (archive.root / place).rglob("*")
        if path.is_file()
    }


def test_closures_are_carried_where_that_is_asked_for(mirror: Mirror, archive: Archive) -> None:
    folders = [add_closure(archive, place) for place in PLACES]
    (folders[0] / "pool/nobody-lists-it.deb").write_text("x")
    mirror.ok()
    assert carried(mirror) == {}
    mirror.ok("--closures")
    listed = {path: digest for path, digest in served(archive, *PLACES).items() if "nobody" not in path}
    assert carried(mirror) == listed
    # Only the archive's own evidence, which it has signed again, is fetched again.
    sign(archive.key, folders[1] / OWN, "Suite: trixie\nDate: later\n")
    archive.publish()
    assert re.search("all files are verified; publishing them", mirror.ok("--closures"))
    assert carried(mirror)[f"{PLACES[1]}/{OWN}"] == sha(folders[1] / OWN)
    assert mirror.ok("--closures").count("fetching") == 0
    # A damaged file is found, as elsewhere in the mirror.
    (mirror.dest / PLACES[0] / "pool/b_1_all.deb").write_text("-" * 59)
    mirror.ok("--closures", "--verify-all")
    assert carried(mirror).keys() == listed.keys()
    assert carried(mirror)[f"{PLACES[0]}/pool/b_1_all.deb"] == sha(folders[0] / "pool/b_1_all.deb")


def test_a_closure_that_the_source_has_not_is_passed_over(mirror: Mirror, archive: Archive) -> None:
    folder = add_closure(archive, PLACES[1])
    mirror.ok("--closures")
    assert carried(mirror) == served(archive, PLACES[1])
    remove(folder)
    add_closure(archive, PLACES[0], named="")
    archive.publish()
    assert f"{PLACES[0]} does not list its files and is skipped" in mirror.ok("--closures")
    # Files that were mirrored stay while an index that leads to them is valid.
    assert {path.rpartition("/")[0] for path in carried(mirror)} >= {f"{PLACES[1]}/pool"}
    assert not [path for path in carried(mirror) if path.startswith(PLACES[0])]


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("deb", "does not have the size and hash|is missing"),
        ("evidence", "does not have the size and hash|is missing"),
        ("own", f"{PLACES[1]}/{OWN} at .* is not signed by a key"),
        ("release", "dists/trixie/InRelease at .* is not signed by a key"),
        ("surrounded", "dists/trixie/InRelease at .* is not signed by a key"),
        ("place", f"is the index of {PLACES[0]}"),
        ("missing", "is missing at the source"),
    ],
)
def test_what_is_wrong_with_a_closure_refuses_the_run(
    mirror: Mirror, archive: Archive, other_key: Key, what: str, says: str
) -> None:
    mirror.ok()
    folder = add_closure(archive, PLACES[1], named=PLACES[0] if what == "place" else None)
    release = folder / "dists/trixie/InRelease"
    if what == "deb":
        (folder / "pool/b_1_all.deb").write_text("-" * 59)
    elif what == "evidence":
        (folder / "evidence/0/InRelease").write_text("-" * 70)
    elif what == "own":
        sign(other_key, folder / OWN, "Suite: trixie\n")
    elif what == "release":
        sign(other_key, release, "Closure: x\n")
    elif what == "surrounded":
        release.write_text(f"Closure: x\n\n{release.read_text()}")
    elif what == "missing":
        (folder / "pool/b_1_all.deb").unlink()
    mirror.refused("--closures", says=says)
    assert carried(mirror) == {}


@pytest.mark.parametrize(
    "row",
    [
        f"{'a' * 64} 1 ../../../x",
        f"{'a' * 64} 1 dists/trixie/InRelease",
        f"{'a' * 63} 1 pool/x",
        f"{'a' * 64} -1 pool/x",
        "- - pool/x",
        "- - evidence/../InRelease",
        f"{'a' * 64} 1 pool/x y",
    ],
)
def test_a_list_that_leads_elsewhere_is_refused(mirror: Mirror, archive: Archive, row: str) -> None:
    mirror.ok()
    folder = add_closure(archive, PLACES[1])
    text = f"Suite: trixie\nClosure: {PLACES[1]}\nClosure-Files:\n {row}\nSHA256:\n"
    sign(archive.key, folder / "dists/trixie/InRelease", text)
    mirror.refused("--closures", says="has an invalid line")
