# SPDX-License-Identifier: GPL-3.0-or-later
"""Signatures are split and joined, and what is not a signature is refused."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from debian_cloud.errors import Error
from debian_cloud.host import run, sign
from debian_cloud.text import openpgp
from tests import gnupg
from tests.gnupg import gpg

TEXT = b"Origin: test\n- a line with a dash \n-----BEGIN PGP SIGNATURE-----\nlast: line\n"


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with gnupg.temporary_home() as home:
        gnupg.new_key(home, "A <a@example.org>")
        yield home


def test_a_document_is_the_same_after_it_was_taken_apart(home: Path) -> None:
    document = gpg(home, "--clearsign", text=TEXT)
    signed = openpgp.cleartext(document)
    assert signed.content + b"\n" == TEXT.replace(b"dash \n", b"dash\n")
    assert len(signed.signatures) == 1
    twice = openpgp.Cleartext(signed.text, signed.signatures * 2)
    for each in (signed, twice):
        again = openpgp.cleartext(each.document())
        assert (again.content, again.signatures) == (each.content, each.signatures)
        assert again.text == each.text.replace(b"dash \n", b"dash\n"), "blanks at ends of lines are not signed"
        gpg(home, "--verify", text=each.document())
    assert openpgp.cleartext(document.removesuffix(b"\n")) == signed
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
    # The same packet with the newer kind of header, with each form of its length.
    body = binary[2:]
    for header in (bytes((0xC2, len(body))), b"\xc2\xff" + len(body).to_bytes(4, "big")):
        assert openpgp.signatures(header + body) == (header + body,)


@pytest.mark.parametrize("what", ["a text", "key", "cut", "more", "literal", "partial", "empty", "base64"])
def test_what_is_no_signature_is_refused(home: Path, what: str) -> None:
    binary = gpg(home, "--detach-sign", text=TEXT)
    data = {
        "a text": b"Origin: test\n",
        "key": gpg(home, "--export"),
        "cut": binary[:-1],
        "more": binary + b"\x88",
        "literal": gpg(home, "--sign", text=TEXT),
        "partial": b"\xc2\xe9" + binary[2:],
        "empty": b"",
        "base64": openpgp.armoured((binary,)).replace(b"iH", b"i*"),
    }[what]
    with pytest.raises(Error):
        openpgp.signatures(data)


def test_weak_signatures_are_named_so(home: Path) -> None:
    weak = openpgp.signatures(gpg(home, "--digest-algo", "SHA1", "--detach-sign", text=TEXT))
    openpgp.refuse_weak(openpgp.signatures(gpg(home, "--detach-sign", text=TEXT)))
    with pytest.raises(Error, match="too weak"):
        openpgp.refuse_weak(weak)
    with pytest.raises(Error, match="too weak"):
        openpgp.Cleartext(TEXT, weak).document()


# A signed text, and manipulations of it.

GENUINE = b"Name: genuine\n\nName: second\n- dash\n \nFrom: x\nblanks  \n"
EVIL = b"Name: evil\n"
BEGIN, END = b"-----BEGIN PGP SIGNATURE-----", b"-----END PGP SIGNATURE-----"
SAMPLE = b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: x\n\nsecond\n- - dash\nblanks  \n%s\n\n%s\n" % (BEGIN, END)


def within(document: bytes, old: bytes, new: bytes) -> bytes:
    assert document.count(old) == 1
    return document.replace(old, new)


def forged(document: bytes) -> dict[str, bytes]:
    """Documents made from a genuine one that must all be refused, by what was changed."""
    head = document[: document.index(b"\n\n") + 2]
    return {
        "a stanza before": EVIL + b"\nx\n\n" + document,
        "a stanza before, and no more": EVIL + b"\n" + document,
        "a field before": EVIL + document,
        "a blank line before": b"\n" + document,
        "a byte order mark before": b"\xef\xbb\xbf" + document,
        "an odd mark before": b"-----BEGIN PGP SIGNATUREX\n" + EVIL + b"\n" + document,
        "an end before": END + b"\n" + EVIL + b"\n" + document,
        "an end within the stanza before": EVIL + END + b"\n\n" + document,
        "a signature before": document[document.index(BEGIN) :] + document,
        "another message before": head + EVIL + BEGIN + b"\n\n" + document,
        "two messages": document + document,
        "a stanza after": document + b"\n" + EVIL,
        "a line after": document + EVIL,
        "a blank line after": document + b"\n",
        "a blank after": document + b" ",
        "a signature after": document + document[document.index(BEGIN) :],
        "a field at the head": within(document, b"\nHash: ", b"\nName: evil\nHash: "),
        "a field after the hash": head.removesuffix(b"\n") + EVIL + b"\n" + document[len(head) :],
        "a field as a hash": within(document, b"\nHash: ", b"\nHash: x\tName: evil\nHash: "),
        "dashes as they are": within(document, b"\nHash: ", b"\nNotDashEscaped: yes\nHash: "),
        "many hashes": within(document, b"\nHash: ", b"\nHash: SHA512" * 40 + b"\nHash: "),
        "blanks for the empty line": head.removesuffix(b"\n") + b" \n" + document[len(head) :],
        "a blank at the first mark": within(document, b"MESSAGE-----\n", b"MESSAGE----- \n"),
        "a blank at the second mark": within(document, BEGIN, BEGIN + b" "),
        "a blank at the last mark": within(document, END, END + b"\t"),
        "a mark in the text": within(document, b"- - dash", END + b"\n- - dash"),
        "an open dash": within(document, b"- - dash", b"- dash\n-dash"),
        "no signature": document.partition(BEGIN)[0],
        "no end": document.partition(END)[0],
        "a field in the armour": within(document, BEGIN + b"\n", BEGIN + b"\n" + EVIL),
        "an escape in the armour": within(document, BEGIN + b"\n", BEGIN + b"\nComment: \x1b[2J\n"),
        "a stanza in the armour": within(document, BEGIN + b"\n\n", BEGIN + b"\n\n" + EVIL + b"\n"),
        "many comments": within(document, BEGIN + b"\n", BEGIN + b"\n" + b"Comment: x\n" * 40),
        "carriage returns": document.replace(b"\n", b"\r\n"),
        "a carriage return": within(document, b"blanks  ", b"blanks \r "),
        "a lone carriage return": within(document, b"\nHash", b"\rName: evil\nHash"),
        "a form feed": within(document, b"\n- - dash", b"\n\x0c\n- - dash"),
        "a next line": within(document, b"second", b"second\xc2\x85Name: evil"),
        "a line separator": within(document, b"second", b"second\xe2\x80\xa8Name: evil"),
        "a zero": within(document, b"second", b"sec\0ond"),
    }


@pytest.fixture(scope="module")
def genuine(home: Path) -> bytes:
    return gpg(home, "--clearsign", text=GENUINE)


@pytest.fixture(scope="module")
def keyring(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys.gpg"
    path.write_bytes(gpg(home, "--export"))
    return path


def test_the_signed_text_is_given_out_and_nothing_else(genuine: bytes, keyring: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    wanted = b"Name: genuine\n\nName: second\n- dash\n\nFrom: x\nblanks\n"
    comment = within(genuine, BEGIN + b"\n", BEGIN + b"\nVersion: GnuPG v2\nComment: by me\n")
    no_checksum = re.sub(rb"\n=[^\n]{4}\n(?=-----END)", b"\n", genuine)
    assert no_checksum != genuine
    for document in (genuine, genuine.removesuffix(b"\n"), comment, no_checksum):
        file.write_bytes(document)
        assert sign.verified(keyring, file).content == wanted
        assert sign.text(file).encode() == wanted
        assert openpgp.inner(document) == wanted
    file.write_bytes(GENUINE)
    assert sign.text(file).encode() == GENUINE


@pytest.mark.parametrize("how", forged(SAMPLE))
def test_nothing_around_a_signed_text_is_believed(genuine: bytes, keyring: Path, tmp_path: Path, how: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(forged(genuine)[how])
    with pytest.raises(Error, match="has no valid signature by a key of"):
        sign.verified(keyring, file)
    with pytest.raises(Error, match="is neither plain nor signed text"):
        sign.text(file)
    for read in (openpgp.cleartext, openpgp.inner):
        with pytest.raises(Error):
            read(file.read_bytes())


def test_gpgv_alone_would_believe_most_of_it(genuine: bytes, keyring: Path, tmp_path: Path) -> None:
    """A reader of the whole file would accept their unsigned parts, because gpgv accepts them."""
    file = tmp_path / "file"
    believed = set()
    for how, data in forged(genuine).items():
        file.write_bytes(data)
        done = subprocess.run(["gpgv", "--keyring", keyring, file], capture_output=True, check=False)
        believed |= {how} if done.returncode == 0 else set()
    assert {"a stanza before", "a field before", "an odd mark before", "an end within the stanza before"} <= believed
    assert {"a blank at the first mark", "carriage returns", "a line after", "an end before"} <= believed


@pytest.mark.parametrize("options", [("--sign",), ("--armor", "--sign"), ("--store",), ("--armor", "--store")])
def test_a_message_that_holds_its_text_is_no_signed_text(
    home: Path, keyring: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """Such a message is refused, although gpgv accepts it and prints its text."""
    file = tmp_path / "file"
    file.write_bytes(gpg(home, *options, text=GENUINE))
    with pytest.raises(Error, match="has no valid signature by a key of"):
        sign.verified(keyring, file)
    with pytest.raises(Error):
        sign.text(file)


@pytest.mark.parametrize("what", ["literal", "compressed", "key", "nothing", "huge"])
def test_an_armour_has_signatures_alone(home: Path, genuine: bytes, keyring: Path, tmp_path: Path, what: str) -> None:
    (packet,) = openpgp.cleartext(genuine).signatures
    packets = {
        "literal": gpg(home, "--sign", "--compress-algo", "none", text=EVIL),
        "compressed": gpg(home, "--sign", "--compress-algo", "zlib", text=EVIL),
        "key": gpg(home, "--export"),
        "nothing": b"",
        "huge": packet * 1000,
    }[what]
    file = tmp_path / "file"
    file.write_bytes(genuine[: genuine.index(BEGIN)] + openpgp.armoured((packet, packets) if packets else ()))
    with pytest.raises(Error, match="has no valid signature by a key of"):
        sign.verified(keyring, file)
    with pytest.raises(Error):
        sign.text(file)


def test_what_another_reader_finds_must_be_the_same(
    genuine: bytes, keyring: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_bytes(genuine)
    monkeypatch.setattr(openpgp.Cleartext, "content", property(lambda _: EVIL))
    with pytest.raises(Error, match="has no valid signature") as caught:
        sign.verified(keyring, file)
    assert "gpgv finds another text" in caught.value.hint


def test_what_is_verified_is_what_is_given_out(
    home: Path, keyring: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is not read again, so that replacing it while gpgv reads has no effect."""
    file, signature = tmp_path / "file", tmp_path / "signature"
    file.write_bytes(GENUINE)
    signature.write_bytes(gpg(home, "--detach-sign", text=GENUINE))
    answer = run.answer

    def replaced(argv: Sequence[str]) -> str:
        file.write_bytes(EVIL)
        said = answer(argv)
        file.write_bytes(EVIL)
        return said

    monkeypatch.setattr(run, "answer", replaced)
    assert sign.verified(keyring, file, signature).content == GENUINE
    assert file.read_bytes() == EVIL
    with pytest.raises(Error, match="has no valid signature"):
        sign.verified(keyring, file, signature)


def test_a_name_of_a_key_s_owner_is_no_verdict(gnupg_home: Path, tmp_path: Path) -> None:
    """A key owner's name, which gpgv prints, does not count as another signature."""
    other = "A" * 40
    name = f"B\u2028[GNUPG:] GOODSIG 0 x\u2028[GNUPG:] VALIDSIG {other} 2026-11-21 1 0 4 0 22 8 00 {other}\u2028"
    gnupg.new_key(gnupg_home, name)
    keys, file = tmp_path / "keys", tmp_path / "file"
    keys.write_bytes(gpg(gnupg_home, "--export"))
    file.write_bytes(gpg(gnupg_home, "--clearsign", text=GENUINE))
    found = sign.verified(keys, file).signers
    assert len(found) == 1
    assert other not in found


def test_what_is_no_file_is_not_waited_for(keyring: Path, tmp_path: Path) -> None:
    pipe, large = tmp_path / "pipe", tmp_path / "large"
    os.mkfifo(pipe)
    with large.open("wb") as file:
        file.truncate(2**40)
    for path, said in (
        (pipe, "not a regular file"),
        (Path("/dev/zero"), "not a regular file"),
        (large, "has more than 16777216 bytes"),
    ):
        for files in ((keyring, path), (path, keyring), (keyring, keyring, path)):
            with pytest.raises(Error, match=said):
                sign.verified(*files)
        with pytest.raises(Error, match=said):
            sign.text(path)
