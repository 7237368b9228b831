# SPDX-License-Identifier: GPL-3.0-or-later
"""Signatures are taken apart and put together again, and what is no signature is refused."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from debian_cloud import openpgp
from debian_cloud.errors import Error

TEXT = b"Origin: test\n- a line with a dash \n-----BEGIN PGP SIGNATURE-----\nlast: line\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gpg")
    path.chmod(0o700)
    gpg(path, "--passphrase", "", "--quick-generate-key", "A <a@example.org>", "ed25519", "sign")
    return path


def gpg(home: Path, *arguments: str | Path, text: bytes = b"") -> bytes:
    command: list[str | Path] = ["gpg", "--homedir", home, "--batch", "--pinentry-mode", "loopback", *arguments]
    done = subprocess.run(command, input=text, capture_output=True, check=True).stdout
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True)
    return done


def test_a_document_is_the_same_after_it_was_taken_apart(home: Path) -> None:
    document = gpg(home, "--clearsign", text=TEXT)
    signed = openpgp.cleartext(document)
    assert signed.content + b"\n" == TEXT.replace(b"dash \n", b"dash\n")
    assert len(signed.signatures) == 1
    twice = openpgp.Cleartext(signed.text, signed.signatures * 2)
    for each in (signed, twice):
        assert openpgp.cleartext(each.document()) == each
        gpg(home, "--verify", text=each.document())
    assert openpgp.cleartext(document.replace(b"\n", b"\r\n")) == signed
    assert openpgp.field(signed.content, "Origin") == "test"
    assert openpgp.field(signed.content, "Nothing") == ""


def test_hashes_are_named_that_the_signatures_are_of(home: Path) -> None:
    several = tuple(
        packet
        for name in ("SHA256", "SHA512", "SHA256")
        for packet in openpgp.cleartext(gpg(home, "--digest-algo", name, "--clearsign", text=TEXT)).signatures
    )
    text = openpgp.cleartext(gpg(home, "--clearsign", text=TEXT)).text
    document = openpgp.Cleartext(text, several).document()
    assert b"\nHash: SHA256,SHA512\n\n" in document
    gpg(home, "--verify", text=document)


def test_a_detached_signature_comes_armoured_or_not(home: Path) -> None:
    binary = gpg(home, "--detach-sign", text=TEXT)
    assert openpgp.signatures(binary) == (binary,)
    assert openpgp.signatures(openpgp.armoured((binary, binary))) == (binary, binary)
    # With and without padding.
    for number in (1, 2, 3):
        read = gpg(home, "--dearmor", text=openpgp.armoured((binary,) * number))
        assert read == binary * number
    # The same packet with the newer kind of header, in all its lengths.
    body = binary[2:]
    for header in (bytes((0xC2, len(body))), b"\xc2\xff" + len(body).to_bytes(4, "big")):
        assert openpgp.signatures(header + body) == (header + body,)


@pytest.mark.parametrize("what", ["a text", "key", "cut", "more", "weak", "literal", "partial", "empty", "base64"])
def test_what_is_no_signature_is_refused(home: Path, what: str) -> None:
    binary = gpg(home, "--detach-sign", text=TEXT)
    data = {
        "a text": b"Origin: test\n",
        "key": gpg(home, "--export"),
        "cut": binary[:-1],
        "more": binary + b"\x88",
        "weak": gpg(home, "--digest-algo", "SHA1", "--detach-sign", text=TEXT),
        "literal": gpg(home, "--sign", text=TEXT),
        "partial": b"\xc2\xe9" + binary[2:],
        "empty": b"",
        "base64": openpgp.armoured((binary,)).replace(b"iH", b"i*"),
    }[what]
    with pytest.raises(Error):
        openpgp.signatures(data)


@pytest.mark.parametrize("how", ["two", "no armour", "before", "weak"])
def test_what_is_no_cleartext_is_refused(home: Path, how: str) -> None:
    document = gpg(home, "--clearsign", text=b"one line\n")
    data = {
        "two": document + document,
        "no armour": document.partition(b"-----BEGIN PGP SIGNATURE")[0],
        "before": b"Origin: evil\n" + document,
        "weak": gpg(home, "--digest-algo", "SHA1", "--clearsign", text=b"one line\n"),
    }[how]
    with pytest.raises(Error):
        openpgp.cleartext(data)
