# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever is in incoming/, the next upload is decided, and what is not an upload is set aside with a reason."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from debian_cloud.archive import incoming, upload
from debian_cloud.archive.incoming import LIMITS
from debian_cloud.text import openpgp
from tests import malformed
from tests.archive.conftest import Archive, Key, Upload, run
from tests.archive.debs import BROKEN_MEMBERS, CONTROLS, DATA, DATAS, PLAIN, VERSION, deb, member
from tests.archive.owners import NO_QUESTIONS, exported
from tests.gnupg import remove
from tools import archive_manual

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.archive.conftest import Maker

SOURCE = "debian-cloud-config-queue"


@pytest.fixture(scope="module")
def shared(short_path: Path, env: dict[str, str], uploader: Key) -> Iterator[Archive]:
    """An archive for all tests of this module, each of which leaves the queue empty."""
    path = short_path / "queue"
    run(["debian-cloud-archive", "init", path, "--uploader", uploader.public], env)
    (path / "conf/closures").unlink()
    yield Archive(path, env)
    remove(path)


@pytest.fixture
def queue(shared: Archive) -> Iterator[Path]:
    yield shared.path / "incoming"
    assert [*(shared.path / "tmp").iterdir()] == []
    for path in (shared.path / "incoming").iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def good(make: Maker, uploader: Key, version: str) -> Upload:
    """Make a good upload whose name sorts last."""
    upload = make.deb(uploader, version, package=SOURCE, source=SOURCE)
    return Upload(upload.changes.rename(upload.changes.with_name(f"zzz_{version}.changes")), upload.files)


def sentences(archive: Archive, said: str) -> dict[str, str]:
    """What a run refused: the directory in rejected/ -> its reason, which has one sentence and one hint."""
    found = {}
    for kept in re.findall(r"^refused: .* \(kept: rejected/(.*)\)$", said, re.MULTILINE):
        reason = (archive.path / "rejected" / kept / "reason").read_text()
        assert len(re.findall("^error: .", reason, re.MULTILINE)) == 1, reason
        assert len(re.findall("^hint: .", reason, re.MULTILINE)) == 1, reason
        found[kept] = reason
    return found


def test_no_name_and_no_kind_of_file_stops_the_queue(
    shared: Archive, make: Maker, uploader: Key, queue: Path
) -> None:
    raw = os.fsencode(queue)
    (shared.path / "conf/rejected").write_text("uploads 1000\n")
    odd = [b"x" * length + b".changes" for length in (1, 190, 191, *range(242, 248))]
    odd += [bytes([byte]) * 3 + b".changes" for byte in range(1, 256) if byte not in b"./"]
    odd += [
        b"-rf.changes",
        b"--help.changes",
        b"a b.changes",
        b"..x.changes"[1:],
        b"'$(touch x)\".changes",
        b"%s%n.changes",
    ]
    odd += [b"x.changes.changes", b"\n\n.changes", "ü€😀\u202e.changes".encode(), b"reason.changes"]
    hidden = {name for name in odd if name.startswith(b".")}
    for name in odd:
        Path(os.fsdecode(raw + b"/" + name)).touch()
    kinds = {}
    for number, kind in enumerate(
        ("folder", "full directory", "fifo", "socket", "link", "dangling", "loop", "device")
    ):
        path = kinds[kind] = queue / f"kind-{number}-{'y' * 230}.changes"
        if kind in ("folder", "full directory"):
            path.mkdir()
        if kind == "full directory":
            (path / "reason").mkdir()
            (path / "x.changes").touch()
        if kind == "fifo":
            os.mkfifo(path)
        if kind == "socket":
            short = queue / "s.changes"
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(short))
            short.rename(path)
        if kind in ("link", "dangling", "loop"):
            path.symlink_to({"link": "/etc/passwd", "dangling": "/nowhere", "loop": path.name}[kind])
        if kind == "device" and os.geteuid() == 0:
            os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))
    big, binary = queue / "big.changes", queue / "binary.changes"
    with big.open("wb") as file:
        file.truncate(20 << 30)
    binary.write_bytes(os.urandom(100_000))
    # A file that no .changes lists waits, because dput sends the .changes last.
    waiting = [queue / "waits.deb", queue / "reason", queue / "x.changes.part"]
    for path in waiting:
        path.write_text("waits")
    shared.put(good(make, uploader, "1.0"))

    done = shared.run("accept", check=False)
    assert done.returncode == 1
    assert done.stderr == ""
    assert "\naccepted: zzz_1.0.changes: into the pool\n" in f"\n{done.stdout}"
    assert f"{SOURCE} 1.0" in shared.packages()
    left = {os.fsencode(path.name) for path in queue.iterdir()}
    assert left == {os.fsencode(path.name) for path in waiting} | hidden
    assert (queue / "reason").read_text() == "waits"
    assert not re.search(r"[^\x20-\x7e\n…]", done.stdout)
    reasons = sentences(shared, done.stdout)
    assert len(reasons) == len({*odd}) - len(hidden) + len(kinds) - (os.geteuid() != 0) + 2
    assert all(len(os.fsencode(name)) < 220 for name in reasons)
    assert all("\nname: " in reason for name, reason in reasons.items() if name.startswith("kind-"))
    assert sum("is not a regular file" in reason for reason in reasons.values()) == len(kinds) - (os.geteuid() != 0)
    assert Path("/etc/passwd").read_text()
    assert sum("big.changes has 21474836480 bytes" in reason for reason in reasons.values()) == 1
    # Remove the large files and the links that end in a loop.
    shutil.rmtree(shared.path / "rejected")
    (shared.path / "rejected").mkdir()
    (shared.path / "conf/rejected").unlink()


def test_many_files_are_a_matter_of_moments(shared: Archive, make: Maker, uploader: Key, queue: Path) -> None:
    """A thousand bad uploads are refused quickly: what counts is that few files are opened."""
    for number in range(1_000):
        (queue / f"a{number}.changes").touch()
        for other in range(9):
            (queue / f"a{number}.{other}.deb").touch()
    shared.put(good(make, uploader, "2.0"))
    trace = make.path / "trace"
    shims = make.path / "shims"
    shims.mkdir()
    (shims / "gpg").write_text(f'#!/bin/sh\necho gpg >>{trace}\nexec /usr/bin/gpg "$@"\n')
    (shims / "gpg").chmod(0o755)
    env = {**shared.env, "PATH": f"{shims}:{shared.env['PATH']}"}
    done = run(["debian-cloud-archive", "accept", shared.path], env, check=False)
    assert done.returncode == 1
    assert "accepted: zzz_2.0.changes: into the pool\n" in done.stdout
    assert done.stdout.count("refused: ") == 1_000
    assert len(trace.read_text().splitlines()) < 20
    # No more refused uploads are kept than the limit, and the removal is reported.
    (removed,) = re.findall(
        "^removed: rejected/.* to .*, ([0-9]+) uploads: there are more than 200$", done.stdout, re.M
    )
    assert int(removed) >= 800
    assert len([*(shared.path / "rejected").iterdir()]) == 200
    assert len([*queue.iterdir()]) == 9_000


def test_what_vanishes_meanwhile_stops_nothing(shared: Archive, make: Maker, uploader: Key, queue: Path) -> None:
    over = threading.Event()

    def flicker() -> None:
        while not over.is_set():
            for number in range(20):
                path = queue / f"b{number}.changes"
                path.write_text("Files:\n 0 0 misc optional b.deb\n")
                (queue / "b.deb").touch()
                path.unlink(missing_ok=True)
                (queue / "b.deb").unlink(missing_ok=True)

    thread = threading.Thread(target=flicker)
    thread.start()
    try:
        for version in ("3.0", "3.1", "3.2"):
            shared.put(good(make, uploader, version))
            done = shared.run("accept", check=False)
            assert f"accepted: zzz_{version}.changes: into the pool\n" in done.stdout
            assert done.stderr == ""
    finally:
        over.set()
        thread.join()


def test_no_file_of_an_unsigned_upload_is_copied(shared: Archive, make: Maker, uploader: Key, queue: Path) -> None:
    """A file that two uploads list stays, that of one is moved, and neither is read 200 times."""
    image = queue / "big.qcow2"
    with image.open("wb") as file:
        file.write(os.urandom(50 << 20))
    inode = image.stat().st_ino
    for name in ("a", "b"):
        (queue / f"{name}.changes").write_text("Files:\n" + " 0 0 raw-images - big.qcow2\n" * 200)
    done = shared.run("accept", check=False)
    assert done.stdout.count("refused: ") == 2
    (kept,) = (shared.path / "rejected").glob("*/big.qcow2")
    assert kept.stat().st_ino == inode
    assert kept.parent.name.startswith("b.changes.")


def test_only_what_is_signed_is_read_and_published(shared: Archive, make: Maker, uploader: Key, queue: Path) -> None:
    def changed(version: str, old: str, new: str) -> Upload:
        upload = good(make, uploader, version)
        text = upload.changes.read_text()
        assert old in text
        upload.changes.write_text(text.replace(old, new, 1))
        return upload

    begin, end = "-----BEGIN PGP SIGNED MESSAGE-----\n", "-----END PGP SIGNATURE-----\n"
    tricks = {
        "before": (begin, f"Source: evil\n\n{begin}"),
        "before, without an empty line": (begin, f"Source: evil\n{begin}"),
        "a signature's beginning before": (begin, f"-----BEGIN PGP SIGNATUREX\n{begin}"),
        "a signature's beginning in it": ("Format: 1.8\n", "-----BEGIN PGP SIGNATUREX\nFormat: 1.8\n"),
        "after": (end, f"{end}\nSource: evil\n"),
        "right after": (end, f"{end}Source: evil\n"),
        "another message": (end, f"{end}{begin}"),
        "a header": ("Hash: ", "Source: evil\nHash: "),
        "dashes": ("Format: 1.8\n", "- Format: 1.8\n--- x\n"),
        "two paragraphs": ("\n\nFormat: 1.8\n", "\n\nSource: evil\n\nFormat: 1.8\n"),
    }
    for name, (old, new) in tricks.items():
        shared.put(changed("4.0", old, new))
        done = shared.run("accept", check=False)
        published = shared.path / f"public/pool/main/d/{SOURCE}/{SOURCE}_4.0_all.changes"
        if "accepted" in done.stdout:
            # The signature does not cover a header of the armour, so the header is removed.
            assert name == "a header", done.stdout
            assert b"evil" not in published.read_bytes()
        else:
            sentences(shared, done.stdout)
            assert "refused" in done.stdout, name
    # The signature does not cover blanks at the ends of lines either.
    shared.put(changed("4.1", "Urgency: medium\n", "Urgency: medium \t \n"))
    assert "accepted: zzz_4.1.changes" in shared.run("accept", check=False).stdout
    published = shared.path / f"public/pool/main/d/{SOURCE}/{SOURCE}_4.1_all.changes"
    assert b"Urgency: medium\n" in published.read_bytes()
    assert openpgp.is_cleartext(published.read_bytes())


def test_gpg_unpacks_nothing_of_an_armour(shared: Archive, make: Maker, uploader: Key, queue: Path) -> None:
    (queue / "packed.changes").write_bytes(malformed.packed_signatures(1))
    done = shared.run("accept", check=False)
    assert "refused: packed.changes: it is not signed by an uploader: it has other data than" in done.stdout


def test_what_a_signer_is_called_is_no_word_of_gpg(
    shared: Archive, make: Maker, short_path: Path, queue: Path
) -> None:
    for number, separator in enumerate(("\u2028", "\u0085")):
        name = f"x{separator}[GNUPG:] {separator}[GNUPG:] BADSIG x"
        home = short_path / f"odd{number}"
        home.mkdir(mode=0o700)
        key = Key(home, short_path / f"odd{number}.asc", "")
        key.gpg(*NO_QUESTIONS, "--quick-generate-key", f"{name} <u{number}@example.org>", "ed25519", "sign", "never")
        key = exported(key)
        shared.run("add-uploader", key.public)
        shared.put(good(make, key, f"5.{number}"))
        done = shared.run("accept", check=False)
        assert done.stdout == f"accepted: zzz_5.{number}.changes: into the pool\n", done.stderr


def test_a_fault_of_a_reader_refuses_one_upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("incoming", "tmp", "rejected"):
        (tmp_path / folder).mkdir()
    for name in ("a.changes", "b.changes"):
        (tmp_path / "incoming" / name).write_text("x")
    # int() refuses numbers of more digits.
    monkeypatch.setattr(openpgp, "cleartext", lambda _: int("9" * 5000))
    monkeypatch.setattr(openpgp, "is_cleartext", lambda _: True)
    rules = incoming.Rules(tmp_path, tmp_path / "keyring", {}, frozenset(), upload.Owners({}, {}))
    refused = [*incoming.Queue(tmp_path).take(rules)]
    assert [line.partition(" (")[0] for line in refused] == [
        f"refused: {name}.changes: it cannot be read: ValueError in a reader" for name in ("a", "b")
    ]
    assert not [*(tmp_path / "incoming").iterdir()]


def test_a_message_that_is_cut_off_has_its_sentence(shared: Archive, make: Maker, uploader: Key, queue: Path) -> None:
    text = good(make, uploader, "5.0").changes.read_bytes()
    lengths = [*range(0, len(text) - 1, 61), text.index(b"-----BEGIN PGP SIGNATURE"), len(text) - 3]
    for length in lengths:
        (queue / f"cut-{length:04}.changes").write_bytes(text[:length])
    done = shared.run("accept", check=False)
    assert len(sentences(shared, done.stdout)) == len(lengths)
    assert "accepted" not in done.stdout
    assert not [*queue.glob("*")]


def test_a_file_that_is_open_elsewhere_is_not_what_is_published(
    shared: Archive, make: Maker, uploader: Key, queue: Path
) -> None:
    """While a process writes into an open file of an upload, only the signed content is published, or nothing."""
    name = SOURCE
    upload = make.deb(uploader, "6.0", package=name, source=name, content="x" * 100_000)
    whole = upload.files[0].read_bytes()
    evil = whole.replace(b"xxxx", b"evil")
    over = threading.Event()
    shared.put(upload)
    file = (queue / upload.files[0].name).open("r+b")

    def write() -> None:
        # The good content stays for a while, so that it is accepted now and then.
        while not over.is_set():
            for content in (evil, whole):
                file.seek(0)
                file.write(content)
                file.flush()
                over.wait(0.002 if content is evil else 0.05)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        done = shared.run("accept", check=False)
    finally:
        over.set()
        thread.join()
        file.close()
    published = shared.path / f"public/pool/main/d/{name}/{upload.files[0].name}"
    assert ("accepted: " in done.stdout) == published.exists()
    if published.exists():
        assert published.read_bytes() == whole
        assert published.stat().st_nlink == 1
    else:
        assert "does not match" in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another")
def test_one_user_does_not_move_the_files_of_another(
    shared: Archive, make: Maker, uploader: Key, queue: Path
) -> None:
    upload = good(make, uploader, "7.0")
    shared.put(Upload(upload.changes.with_name("no"), upload.files))
    thief = queue / "a.changes"
    thief.write_text("Files:\n" + "".join(f" 0 0 misc optional {path.name}\n" for path in upload.files))
    os.chown(thief, 65534, 65534)
    assert "refused: a.changes" in shared.run("accept", check=False).stdout
    shared.put(Upload(upload.changes, ()))
    assert "accepted: zzz_7.0.changes" in shared.run("accept").stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another")
def test_what_cannot_be_moved_is_hidden(make: Maker, env: dict[str, str], uploader: Key) -> None:
    """An archive that is not root's cannot move a directory of another user."""
    place = Path(tempfile.mkdtemp(prefix="dca-"))
    try:
        program = place / "program"
        program.mkdir()
        place.chmod(0o755)
        shutil.chown(program, "nobody", "nogroup")
        incoming, upload_folder = program / "incoming", program / "tmp"
        for name in ("incoming", "tmp", "rejected", "conf", "uploaders"):
            (program / name).mkdir()
            shutil.chown(program / name, "nobody", "nogroup")
        (program / "conf/uploaders").write_text("")
        (incoming / "x.changes/inner").mkdir(parents=True)
        for name in ("keys", "keyring", "owners"):
            (place / name).write_text("")
        code = (
            "import os, sys; os.setgid(65534); os.setuid(65534); sys.path.insert(0, sys.argv.pop(1));"
            "from debian_cloud.archive import steps; from debian_cloud.host import command;"
            "sys.exit(command.main(steps.run))"
        )
        options = [f"--{name}={place / name}" for name in ("keys", "keyring", "owners")]
        source = Path(__file__).resolve().parents[2] / "src"
        command: list[str | Path] = ["/usr/bin/python3", "-c", code, source, "accept", *options, program]
        done = subprocess.run(command, env=env, text=True, capture_output=True, check=False, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("refused: x.changes: it cannot be moved: ")
        assert [path.name for path in incoming.iterdir()] == [".refused.1"]
        assert not [*upload_folder.glob("*/*")]
    finally:
        shutil.rmtree(place)


def test_nothing_to_do_is_one_line(shared: Archive, queue: Path) -> None:
    (queue / "waits.deb").touch()
    done = shared.run("accept")
    assert done.stdout == f"nothing to accept: {queue} has no .changes and 1 other files\n"


def test_what_was_refused_has_a_bound(archive: Archive) -> None:
    rejected, limits = archive.path / "rejected", archive.path / "conf/rejected"
    log_file = archive.path / "log/accept.log"
    log_file.touch()

    def fill() -> None:
        shutil.rmtree(rejected)
        for number in range(6):
            folder = rejected / f"x.changes.{number}"
            folder.mkdir(parents=True)
            (folder / "reason").write_text("error: no\nhint: no\n")
            (folder / "x.changes").write_text("x")
            (folder / "x.deb").write_bytes(os.urandom(2_000_000))
            os.utime(folder, (1_790_000_000 + number * 86400, 1_790_000_000 + number * 86400))

    def kept(text: str) -> list[int]:
        fill()
        limits.write_text(text)
        done = archive.run("accept")
        names = sorted(path.name for path in rejected.iterdir())
        lines = [line for line in done.stdout.splitlines() if line.startswith("removed: rejected/")]
        assert all(line in log_file.read_text() for line in lines)
        assert (f"x.changes.0 to x.changes.{5 - len(names)}, {6 - len(names)} uploads: " in "".join(lines)) == (
            len(names) < 6
        )
        return [int(name.rpartition(".")[2]) for name in names]

    page = archive_manual.page()
    assert all(re.search(f"^    {word} {number}( |$)", page, re.MULTILINE) for word, number in LIMITS.items())
    assert kept("") == [0, 1, 2, 3, 4, 5]
    assert kept("uploads 2 # no more\n") == [4, 5]
    assert kept("days 3\n") == [2, 3, 4, 5]
    assert kept("megabytes 7\n") == [3, 4, 5]
    # The reason of the last one stays, whatever its size.
    assert kept("megabytes 1\n") == [5]
    assert sorted(path.name for path in (rejected / "x.changes.5").iterdir()) == ["reason", "x.changes"]
    limits.write_text("\nuploads many\n")
    done = archive.run("accept", check=False)
    assert (done.returncode, "error: conf/rejected, line 2: " in done.stderr) == (1, True)


def test_no_package_is_taken_that_readers_read_in_two_ways(
    shared: Archive, make: Maker, uploader: Key, queue: Path
) -> None:
    """Every package of tests/archive/test_debfile.py that must be refused is refused in one run."""
    tricks = list(BROKEN_MEMBERS.values())
    tricks += [deb(VERSION, member("control.tar", text), member("data.tar", DATA)) for text in CONTROLS.values()]
    tricks += [deb(VERSION, member("control.tar", PLAIN), member("data.tar", text)) for text in DATAS.values()]
    for number, content in enumerate(tricks):
        file = make.folder() / f"debian-cloud-config-demo_{number}_all.deb"
        file.write_bytes(content)
        fields = {"Binary": "debian-cloud-config-demo", "Architecture": "all", "Version": str(number)}
        shared.put(make.changes([file], uploader, f"deb-{number}.changes", fields))
    before = shared.snapshot()
    done = shared.run("accept", check=False)
    reasons = sentences(shared, done.stdout)
    assert len(reasons) == len(tricks)
    assert all(reason.startswith("uploader: ") for reason in reasons.values())
    assert "Traceback" not in done.stdout + done.stderr
    assert shared.snapshot() == before
