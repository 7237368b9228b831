# SPDX-License-Identifier: GPL-3.0-or-later
"""The scripts' readers of conf/keys, of gpg's listings and of image records return what Python's return."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from debian_cloud.archive import keys, uploaders
from debian_cloud.image import index
from tests.archive.listings import MANY, A, B, C, key
from tests.conftest import ROOT

READERS = ROOT / "archive/lib/readers.sh"
LISTINGS = {
    "one": key((A, "scSC", "")),
    "subkeys": key((A, "cSC", "1800000000"), (B, "s", ""), (C, "e", "1700000000")),
    "several": key((A, "scSC", ""), owners=("Ö\\x3a sec x", "other")) + key((B, "", "")) + key((C, "scSC", "")),
    "secret": key((A, "scSC", ""), (B, "s", "1")).replace("pub:", "sec:").replace("sub:", "ssb:"),
    "none": "tru::1:1790000000:0:3:1:5\n",
}


def read(function: str, *arguments: str | Path, text: str = "") -> list[list[str]]:
    """The rows that a reader prints."""
    command: list[str | Path] = ["sh", "-euc", f'. "$0"; {function} "$@"', READERS, *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    # Not splitlines(): a name may contain another line separator.
    return [line.split(" ") for line in done.stdout.split("\n")[:-1]]


@pytest.mark.parametrize("listing", LISTINGS.values(), ids=LISTINGS)
def test_keys_are_read_alike(listing: str) -> None:
    rows = read("key_rows", text=f"tru::1:1790000000:0:3:1:5\n{listing}")
    known = keys.listed(listing.replace("sec:", "pub:").replace("ssb:", "sub:"))
    assert [(row[0], row[1], row[9], row[8], " ".join(row[11:])) for row in rows] == [
        (one.fingerprint, part.fingerprint, part.capabilities or "-", str(part.expires or "-"), one.owner)
        for one in known
        for part in one.parts
    ]
    secret = subprocess.run(["sh", "-c", '. "$0"; has_secret', READERS], input=listing, text=True, check=False)
    assert (secret.returncode == 0) is listing.startswith("sec:")
    assert read("primaries", text=listing) == [[one.fingerprint] for one in known]
    assert [" ".join(row) for row in read("first_owner", text=listing)] == [one.owner for one in known[:1]]


def test_a_key_has_all_words() -> None:
    """Missing values are a dash, so that each value is in its column."""
    listing = (
        f"sec:-:1024:1:0123456789ABCDEF:1:2:::::scSC:::#:::::\nfpr:::::::::{A}:\nssb::::::::::::\nfpr:::::::::{B}:\n"
    )
    assert read("key_rows", text=listing) == [
        [A, A, "0123456789ABCDEF", "sec", "-", "1", "1024", "1", "2", "scSC", "#", ""],
        [A, B, "-", "ssb", "-", "-", "-", "-", "-", "-", "-", ""],
    ]


def test_the_last_change_is_one_of_the_key_s_own() -> None:
    mine, other = "0123456789ABCDEF", "FEDCBA9876543210"
    listing = f"pub:u:255:22:{mine}:10::::::scSC:\nsig:::22:{mine}:20::::x:13x:\nsig:::22:{other}:40::::x:10x:\n"
    assert read("last_change", text=listing) == [["20"]]
    assert read("last_change", text=f"{listing}sub:u:255:18:{other}:30::::::e:\n") == [["30"]]


CONF = f"# {A} active\n\n{A.lower()}  active since=2026-11-20T00:00:00Z x\n{B}\tretired  y\n{C} cosigner"


def test_states_are_read_alike(tmp_path: Path) -> None:
    conf = tmp_path / "keys"
    conf.write_text(CONF)
    rows = read("conf_keys", conf)
    assert {row[0]: row[1] for row in rows} == keys.states(CONF)
    assert [row[2] for row in rows] == ["2026-11-20T00:00:00Z", "-", "-"]
    assert (
        read("conf_keys", tmp_path / "none") == read("wrong_key", conf) == read("wrong_key", tmp_path / "none") == []
    )
    for line in ("x active", f"{A} frob", f" # {A}", A):
        conf.write_text(f"{CONF}\n{line}\n")
        assert [" ".join(row) for row in read("wrong_key", conf)] == [line]


def test_records_are_read_alike(tmp_path: Path) -> None:
    attestations = tuple(
        index.Attestation(suffix, 5, digit * 64) for suffix, digit in (("cdx.json", "3"), ("x", "4"))
    )
    rebuilds = (index.Attestation(f"{A.lower()}.asc", 5, "5" * 64),)
    made = [
        replace(
            r, buildinfo_sha256="1" * 64, buildinfo_sha512="2" * 128, attestations=attestations, rebuilds=rebuilds
        )
        for r in MANY[:3]
    ]
    (tmp_path / "entered").write_text(index.render(made))
    (tmp_path / "shown").write_text(index.render(index.with_status(MANY)))
    (tmp_path / "empty").write_text("\n")
    known = [*index.parse((tmp_path / "entered").read_text()), *index.parse((tmp_path / "shown").read_text())]
    rows = read("record_rows", tmp_path / "entered", tmp_path / "empty", tmp_path / "shown")
    assert [row[1:] for row in rows if row[0] == "image"] == [
        [one.directory, one.id.architecture, one.status or "-", one.buildinfo] for one in known
    ]
    expected = set()
    for one in known:
        expected |= {("256", one.filename, one.sha256), ("512", one.filename, one.sha512)}
        if one.buildinfo_sha256:
            expected |= {("256", one.buildinfo, one.buildinfo_sha256), ("512", one.buildinfo, one.buildinfo_sha512)}
        # The statements of rebuilders are not the archive's own files.
        expected |= {("256", f"{one.directory}/{one.stem}.{a.suffix}", a.sha256) for a in one.attestations}
    assert {tuple(row[1:]) for row in rows if row[0] == "file"} == expected
    assert read("record_rows", tmp_path / "empty") == []


STATES = {
    "good": key((A, "scSC", "")),
    "revoked": key((A, "scSC", "")).replace("pub:u:", "pub:r:"),
    "expired": key((A, "scSC", "1")).replace("pub:u:", "pub:e:"),
    "weak": key((A, "scSC", "")).replace(":255:22:", ":1024:1:"),
}


@pytest.mark.parametrize("state", STATES)
def test_the_keys_that_sign_have_a_state(state: str) -> None:
    for subkey, expected in (("", [A]), (key((B, "s", "")).replace("pub:", "sub:"), [A, B])):
        command = [ROOT / "archive/steps/signing"]
        listing = re.sub("^uid.*\n", "", subkey, flags=re.M)
        done = subprocess.run(command, input=STATES[state] + listing, capture_output=True, text=True, check=True)
        found = uploaders.keys(done.stdout)
        assert [*found] == expected
        assert done.stdout.split(" ")[2] == state
        assert {one.owner for one in found.values()} == {A}
        assert found[A].weak is (state == "weak")
        # A subkey of a weak key is weak, too.
        assert found[expected[-1]].weak is (state == "weak")
        assert found[A].name == "Somebody <a@b.example>"


def test_nobody_else_reads_them() -> None:
    """No other script reads the columns of gpg's listing, lines of conf/keys or fields of records."""
    for folder in ("lib", "steps", "verbs"):
        for path in sorted((ROOT / "archive" / folder).iterdir()):
            if path == READERS:
                continue
            code = re.sub("^ *#.*\n", "", path.read_text("utf-8"), flags=re.M)
            assert not re.findall(r"awk -F:.*|\^(?:uid|fpr|pub|sec)\b.*", code), path
            assert not re.findall(r"(?:awk|grep|sed|cut)\b[^|\n]*(?<!\$)\"\$(?:dir|archive)/conf/keys\"", code), path
            assert not re.findall(r"\^(?:Filename|Buildinfo|Status|Architecture): .*", code), path
    assert os.access(ROOT / "archive/steps/signing", os.X_OK)
