# SPDX-License-Identifier: GPL-3.0-or-later
"""A kept answer is used only for the same question about the same signed files, and only if this user wrote it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import apt_pkg
import pytest

from debian_cloud import formats
from debian_cloud.errors import Error
from debian_cloud.host import run
from debian_cloud.image import custom, sources
from debian_cloud.image.buildinfo import Draft
from debian_cloud.image.config import ImageConfig
from debian_cloud.image.custom import OFFICIAL
from debian_cloud.image.resolution import Package, Resolution
from debian_cloud.packages import cache, indextargets, kept, releases
from debian_cloud.plan import NAMESPACE, NAMESPACE_USER
from tests import samples, throwaway
from tests.clock import off_by

SOURCE = Path(__file__).resolve().parents[2] / "src"

# With a real apt.

ASK = """
import json, sys
from pathlib import Path
from debian_cloud.errors import Error
from debian_cloud.image import sources
from debian_cloud.image.custom import custom
from debian_cloud.packages import origin
top, settings, add = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
def source(name):
    return sources.Source(f"file:{top}/{name}", ("trixie",), f"{top}/key.gpg")
try:
    with origin._read(top / "root", (source("debian"),), source("archive"), "amd64", (), settings) as read:
        names = [config.name for config in read.configurations("trixie")]
        resolution = read.resolve("fine", "trixie", custom(add, seed="x x/password password hunter2"))
except Error as error:
    sys.exit(error.message)
packages = [f"{package.name} {package.version}" for package in resolution.packages]
releases = [release.sha256 for release in resolution.releases]
answer = [names, packages, resolution.epoch, resolution.custom.lines, releases]
print(json.dumps({"answer": answer, "apt": "apt_pkg" in sys.modules}))
"""


def stanza(name: str, version: str, **fields: str) -> str:
    facts = {"Package": name, "Version": version, "Architecture": "all", "Maintainer": "x", "Installed-Size": "1"}
    facts |= {field.replace("_", "-"): value for field, value in fields.items()}
    facts |= {"Filename": f"{name}.deb", "Size": "1", "SHA256": "0" * 64, "Description": "x"}
    return "".join(f"{field}: {value}\n" for field, value in facts.items())


def fine(version: str = "1.0", name: str = "fine") -> str:
    return stanza(f"debian-cloud-config-{name}", version, Image_Format="tar.xz", Depends="base-files")


@dataclass(frozen=True)
class Small:
    """Two signed archives of a few packages, and a private apt that reads them."""

    top: Path

    @property
    def answers(self) -> list[Path]:
        return sorted((self.top / "root" / kept.FOLDER).iterdir())

    def publish(self, name: str, *stanzas: str, lasts: int = 10 * 86400) -> Path:
        packages = "\n".join(stanzas)
        index = self.top / name / "dists/trixie/main/binary-amd64/Packages"
        index.parent.mkdir(parents=True, exist_ok=True)
        index.write_text(packages)
        now = int(time.time())
        dates = (time.strftime("%a, %d %b %Y %H:%M:%S UTC", time.gmtime(now + add)) for add in (0, lasts))
        release = (
            "Origin: Debian\nLabel: Debian\nSuite: trixie\nCodename: trixie\nDate: {}\nValid-Until: {}\n"
            "Architectures: amd64\nComponents: main\nSHA256:\n {} {} main/binary-amd64/Packages\n"
        ).format(*dates, hashlib.sha256(packages.encode()).hexdigest(), len(packages))
        throwaway.sign(self.top / "home", release, self.top / name / "dists/trixie/InRelease")
        return index

    def ask(self, settings: str = "x", add: str = "") -> dict[str, Any]:
        done = self.run(settings, add)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def run(
        self, settings: str = "x", add: str = "", script: str = ASK, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/usr/bin/python3", "-c", script, self.top, settings, add],
            env={**os.environ, "PYTHONPATH": str(SOURCE), **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )


@pytest.fixture(scope="module")
def signer() -> Iterator[Path]:
    with throwaway.signer() as top:
        yield top


@pytest.fixture
def small(signer: Path) -> Iterator[Small]:
    made = Small(signer)
    debian = [stanza("base-files", "1", Essential="yes"), stanza("apt", "1"), stanza("vim", "1")]
    made.publish("debian", *debian, *(stanza(name, "1") for name in formats.tools("tree")))
    made.publish("archive", fine())
    yield made
    for name in ("debian", "archive", "root"):
        subprocess.run(["rm", "-rf", signer / name], check=True)


@pytest.mark.parametrize(
    ("change", "who", "other"),
    [
        ("/ vim_1_all/d", "python-apt", "apt-get"),
        ("s/ vim_1_all.deb \\(.*\\)/&\\n'x' nano_2%3a1_all.deb \\1/", "apt-get", "python-apt"),
        ("/ vim_1_all/s/SHA256:0/SHA256:1/", "apt-get|python-apt", "apt-get|python-apt"),
    ],
    ids=["less", "more", "another file"],
)
def test_apt_get_must_come_to_the_same_packages(
    small: Small, tmp_path: Path, change: str, who: str, other: str
) -> None:
    (tmp_path / "apt-get").write_text(f"""#!/bin/sh\n/usr/bin/apt-get "$@" | sed "{change}"\n""")
    (tmp_path / "apt-get").chmod(0o755)
    done = small.run(add="vim", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 1
    name = "nano 2:1" if change.startswith("s") else "vim 1"
    assert re.fullmatch(f"({who}) installs {name} with fine, and ({other}) does not\n", done.stderr)


def test_the_second_answer_is_the_first_and_needs_no_apt(small: Small) -> None:
    first, second = small.ask(), small.ask()
    assert (first["apt"], second["apt"]) == (True, False)
    assert first["answer"] == second["answer"]
    assert "debian-cloud-config-fine 1.0" in first["answer"][1]
    # Other settings of apt and other changes are other questions.
    assert small.ask("y")["apt"]
    added = small.ask(add="vim")
    assert added["apt"]
    assert "vim 1" in added["answer"][1]
    assert small.ask(add="vim") == {**added, "apt": False}
    # Without settings, as for a closure, each answer is computed.
    assert [small.ask("")["apt"] for _ in range(2)] == [True, True]


def test_it_is_private_and_has_no_secret(small: Small) -> None:
    small.ask()
    assert len(small.answers) == 2
    assert (small.top / "root" / kept.FOLDER).stat().st_mode & 0o7777 == 0o700
    for file in small.answers:
        assert file.stat().st_mode & 0o7777 == 0o600
        assert "hunter2" not in file.read_text()


def test_what_is_published_is_there_at_once(small: Small) -> None:
    """A new index is read even if its size and time are those of the old one, which is all that apt compares."""
    index = small.publish("archive", fine("1.0"))
    os.utime(index, (10**9, 10**9))
    assert "debian-cloud-config-fine 1.0" in small.ask()["answer"][1]
    assert (small.top / "root/cache" / sources.BINARY_CACHE).is_file()
    size = index.stat().st_size
    index = small.publish("archive", fine("1.1"))
    os.utime(index, (10**9, 10**9))
    assert index.stat().st_size == size
    found = small.ask()
    assert found["apt"]
    assert "debian-cloud-config-fine 1.1" in found["answer"][1]
    small.publish("archive", fine("1.1"), fine("1.0", "other"))
    assert small.ask()["answer"][0] == ["debian-cloud-config-fine", "debian-cloud-config-other"]
    small.publish("archive", fine("1.1"))
    assert small.ask()["answer"][0] == ["debian-cloud-config-fine"]


@pytest.mark.parametrize(("offset", "said"), [("-5d", "not valid yet"), ("+30d", "expired")])
def test_no_clock_brings_an_answer_that_apt_refuses(small: Small, tmp_path: Path, offset: str, said: str) -> None:
    assert small.ask()["apt"]
    # The builder gives its tools a clean environment, so the clock is changed for apt-get alone.
    (tmp_path / "apt-get").write_text(
        f'#!/bin/sh\nset -- {shlex.join(off_by(offset))} /usr/bin/apt-get "$@"\nexec "$@"\n'
    )
    (tmp_path / "apt-get").chmod(0o755)
    done = small.run(PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 1
    assert said in done.stderr
    assert not small.ask()["apt"]


def test_what_another_key_signed_has_no_answer(small: Small, tmp_path: Path) -> None:
    """The signature is verified when the file is read, although apt has verified it before."""
    small.ask()
    (name,) = (small.top / "root/lists").glob("*_archive_dists_trixie_InRelease")
    source = sources.Source(f"file:{small.top}/archive", ("trixie",), f"{small.top}/key.gpg")
    (good,) = releases.read(small.top / "root/lists", (source,))
    assert good.record.sha256 == hashlib.sha256(name.read_bytes()).hexdigest()
    name.write_bytes(name.read_bytes().replace(b"Label: Debian", b"Label: Other"))
    with pytest.raises(Error, match="has no valid signature"):
        releases.read(small.top / "root/lists", (source,))


def test_an_index_that_apt_cannot_read_is_one_sentence(small: Small) -> None:
    small.publish("archive", "Package: x\nVersion\n\nno field\n")
    done = small.run()
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("apt cannot read the package indexes")


@pytest.mark.parametrize("content", [b"", b"\0" * 4096, None])
def test_a_damaged_binary_cache_is_made_anew(small: Small, content: bytes | None) -> None:
    whole = small.ask()["answer"]
    file = small.top / "root/cache" / sources.BINARY_CACHE
    # A killed apt left this.
    file.with_name(f"{file.name}.1a2B3c").touch()
    file.write_bytes(file.read_bytes()[:-4096] if content is None else content)
    found = small.ask("y")
    assert found == {"answer": whole, "apt": True}
    assert file.stat().st_size > 4096
    assert [*file.parent.iterdir()] == [file]


FULL = """
set -eu
for folder in cache resolved
do
    rm -rf "$1/root/$folder"
    mkdir -m 700 "$1/root/$folder"
    mount -t tmpfs -o size=4k,mode=700 none "$1/root/$folder"
done
/usr/bin/python3 -c "$2" "$1" x ''
ls "$1/root/cache"
"""


def test_a_full_disk_does_not_change_the_answer(small: Small) -> None:
    """Neither the binary cache nor the answer can be written, and apt's unfinished file is removed."""
    whole = small.ask()["answer"]
    rooted = NAMESPACE if os.geteuid() == 0 else NAMESPACE_USER
    done = subprocess.run(
        [*rooted, "sh", "-c", FULL, "sh", small.top, ASK],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=True,
    )
    said, *left = done.stdout.splitlines()
    assert json.loads(said) == {"answer": whole, "apt": True}
    assert left == []


KILLED = ASK.replace("import json, sys\n", "import json, os, sys\n").replace(
    "top, settings", "os.rename = lambda *_, **__: os.kill(os.getpid(), 9)\ntop, settings", 1
)


def test_a_killed_run_leaves_no_answer(small: Small) -> None:
    whole = small.ask("y")["answer"]
    assert small.run(script=KILLED).returncode == -9
    assert [file.name for file in small.answers if len(file.name) < 64] == ["new"]
    assert small.ask() == {"answer": whole, "apt": True}
    assert small.ask() == {"answer": whole, "apt": False}
    assert all(len(file.name) == 64 for file in small.answers)


# One file of an answer.

CONFIG = ImageConfig(
    *(
        "debian-cloud-config-x",
        "1",
        "amd64",
        "trixie",
        "x",
        "x",
        1,
        ("raw",),
        ("uefi",),
        "",
        "",
        ("nvme",),
        "",
        (),
        "",
    ),
    *("", "", 0, "", "", (), ("main",)),
)
PACKAGES = tuple(Package(f"p{number}", "1:2", "all", number, "0" * 64) for number in range(3))
RESOLUTION = Resolution(CONFIG, PACKAGES, 5, 6, OFFICIAL, PACKAGES[:1], "pins", (), ("p1",))
ASKED = ("x", "trixie", OFFICIAL, None)


class AskedError(Exception):
    """The question was asked, because there was no kept answer."""


def nobody() -> Resolution:
    raise AskedError


@pytest.fixture
def store(tmp_path: Path) -> Iterator[kept.Store]:
    """The store of the directory `root`, with one answer."""
    root = tmp_path / "root"
    root.mkdir(mode=0o755)
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    made = kept.store(root, descriptor, "releases", "settings")
    assert made is not None
    assert kept.resolution(made, ASKED, lambda: RESOLUTION) == RESOLUTION
    yield made
    os.close(descriptor)


def answers(tmp_path: Path) -> list[Path]:
    return [*(tmp_path / "root" / kept.FOLDER).iterdir()]


def test_an_answer_comes_back_as_it_was(store: kept.Store) -> None:
    assert kept.resolution(store, ASKED, nobody) == RESOLUTION
    assert kept.configurations(store, "trixie", lambda: (CONFIG, CONFIG)) == (CONFIG, CONFIG)
    assert kept.configurations(store, "trixie", lambda: ()) == (CONFIG, CONFIG)
    # A seed and a host name do not change the packages; the answer has those of the question.
    seeded = replace(OFFICIAL, seed="a b string c", hostname="h")
    assert kept.resolution(store, ("x", "trixie", seeded, None), nobody).custom == seeded


@pytest.mark.parametrize(
    "asked",
    [
        ("y", "trixie", OFFICIAL, None),
        ("x", "sid", OFFICIAL, None),
        ("x", "trixie", custom.custom("vim"), None),
        ("x", "trixie", custom.custom(remove="vim"), None),
        ("x", "trixie", custom.custom(disk="12G"), None),
        ("x", "trixie", replace(OFFICIAL, sources=("http://a x main",)), None),
    ],
    ids=lambda asked: " ".join(map(str, asked[:2])),
)
def test_another_question_has_another_answer(store: kept.Store, asked: Any) -> None:
    with pytest.raises(AskedError):
        kept.resolution(store, asked, nobody)


def test_a_lock_is_part_of_the_question(store: kept.Store) -> None:
    locked = Draft.of(samples.RESOLUTION, "20261120.0", ("qcow2",), samples.DEBIAN, "1" * 64).buildinfo
    first = ("x", "trixie", OFFICIAL, locked)
    with pytest.raises(AskedError):
        kept.resolution(store, first, nobody)
    kept.resolution(store, first, lambda: RESOLUTION)
    assert kept.resolution(store, first, nobody) == RESOLUTION
    for other in (replace(locked, epoch=1), replace(locked, packages=locked.packages[1:]), replace(locked, tools=())):
        with pytest.raises(AskedError):
            kept.resolution(store, ("x", "trixie", OFFICIAL, other), nobody)


@pytest.mark.parametrize("part", ["releases", "settings", "version", "apt", "code"])
def test_what_all_questions_have_in_common(
    store: kept.Store, tmp_path: Path, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if part == "version":
        monkeypatch.setattr(kept, "VERSION", "9")
    elif part == "apt":
        monkeypatch.setattr(run, "output", lambda argv: "apt 9" if argv == ("apt-get", "--version") else "")
    elif part == "code":
        monkeypatch.setattr(kept, "_CODE", tmp_path)
    of = ("changed" if part == "releases" else "releases", "changed" if part == "settings" else "settings")
    other = kept.store(tmp_path / "root", store.root, *of)
    assert other is not None
    with pytest.raises(AskedError):
        kept.resolution(other, ASKED, nobody)


def _swap(file: Path) -> None:
    """Put a complete answer to another question under this name."""
    text = file.read_text()
    name = "a" * 64
    file.write_text(text.replace(text[:64], name))


def _forge(file: Path) -> None:
    head, _, body = file.read_bytes().partition(b"\n")
    file.write_bytes(head + b"\n" + body.replace(b'"p1"', b'"p9"'))


def _with(change: Callable[[Any], object]) -> Callable[[Path], None]:
    """Return a function that changes the answer in a file, and corrects the hash."""

    def done(file: Path) -> None:
        value = json.loads(file.read_text().partition("\n")[2])
        change(value)
        body = json.dumps(value).encode()
        file.write_bytes(f"{file.name} {hashlib.sha256(body).hexdigest()}\n".encode() + body)

    return done


def _by_link(file: Path) -> None:
    other = file.with_name("other")
    file.rename(other)
    file.symlink_to(other)


def _fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file, 0o600)


TAMPERED: dict[str, Callable[[Path], object]] = {
    "empty": lambda file: file.write_bytes(b""),
    "truncated": lambda file: os.truncate(file, file.stat().st_size - 1),
    "cut in its head": lambda file: os.truncate(file, 40),
    "swapped": _swap,
    "forged": _forge,
    "group may write": lambda file: file.chmod(0o620),
    "all may read": lambda file: file.chmod(0o604),
    "a link": _by_link,
    "two names": lambda file: os.link(file, file.with_name("other")),
    "a pipe": _fifo,
    "too large": lambda file: os.truncate(file, kept.LARGEST + 1),
    "no field": _with(lambda value: value.pop("epoch")),
    "an unknown field": _with(lambda value: value.update(x="y")),
    "a text for a number": _with(lambda value: value.update(epoch="5")),
    "a truth for a number": _with(lambda value: value.update(epoch=True)),
    "a text for a list": _with(lambda value: value.update(recommended="p1")),
    "no list of packages": _with(lambda value: value.update(packages={})),
    "a package without a hash": _with(lambda value: value["packages"][0].pop("sha256")),
    "a configuration of lists": _with(lambda value: value.update(config=[])),
    "the directory is open": lambda file: file.parent.chmod(0o710),
}


@pytest.mark.parametrize("how", [*TAMPERED])
def test_what_is_not_as_it_was_written_is_asked_again(store: kept.Store, tmp_path: Path, how: str) -> None:
    (file,) = answers(tmp_path)
    TAMPERED[how](file)
    with pytest.raises(AskedError):
        kept.resolution(store, ASKED, nobody)
    assert kept.resolution(store, ASKED, lambda: RESOLUTION) == RESOLUTION
    if how != "the directory is open":
        assert kept.resolution(store, ASKED, nobody) == RESOLUTION


def test_a_right_file_of_the_same_making_is_believed(store: kept.Store, tmp_path: Path) -> None:
    """The files of the test above are refused because of their content, not because a test wrote them."""
    (file,) = answers(tmp_path)
    _with(lambda value: value.update(epoch=7))(file)
    assert kept.resolution(store, ASKED, nobody).epoch == 7


def test_what_belongs_to_another_is_not_believed(store: kept.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(AskedError):
        kept.resolution(store, ASKED, nobody)
    assert kept.resolution(store, ASKED, lambda: RESOLUTION) == RESOLUTION


@pytest.mark.parametrize("mode", [0o757, 0o777])
def test_nothing_is_kept_where_others_may_write(tmp_path: Path, mode: int) -> None:
    """Others could replace the directory by one with older lists, which are correctly signed."""
    shared = tmp_path / "shared"
    (shared / "root").mkdir(parents=True)
    shared.chmod(mode)
    assert kept.store(shared / "root", 0, "x") is None
    shared.chmod(0o755)
    assert kept.store(shared / "root", 0, "x") is not None


def test_a_directory_that_takes_the_place_of_ours_is_not_read(store: kept.Store, tmp_path: Path) -> None:
    (file,) = answers(tmp_path)
    (tmp_path / "root").rename(tmp_path / "away")
    evil = tmp_path / "root" / kept.FOLDER / file.name
    evil.parent.mkdir(parents=True, mode=0o700)
    evil.touch(0o600)
    evil.write_text((tmp_path / "away" / kept.FOLDER / file.name).read_text())
    _with(lambda value: value.update(epoch=666))(evil)
    assert kept.resolution(store, ASKED, nobody).epoch == RESOLUTION.epoch
    kept.resolution(store, ("y", *ASKED[1:]), lambda: RESOLUTION)
    assert answers(tmp_path) == [evil]


def test_answers_are_bounded(store: kept.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST", 3)
    (first,) = answers(tmp_path)
    os.utime(first, (10, 10))
    for name in "abc":
        kept.resolution(store, (name, *ASKED[1:]), lambda: RESOLUTION)
    assert first not in answers(tmp_path)
    assert len(answers(tmp_path)) == 3
    # An answer that was used again is not the oldest, and one with a time in the future is.
    for number, file in enumerate(sorted(answers(tmp_path), key=lambda file: file.stat().st_mtime_ns)):
        os.utime(file, (20 + number, 20 + number))
    kept.resolution(store, ("a", *ASKED[1:]), nobody)
    future = next(file for file in answers(tmp_path) if file.stat().st_mtime == 22)
    os.utime(future, (time.time() + 10**6,) * 2)
    kept.resolution(store, ("d", *ASKED[1:]), lambda: RESOLUTION)
    assert future not in answers(tmp_path)
    for name in "ef":
        kept.resolution(store, ("a", *ASKED[1:]), nobody)
        kept.resolution(store, (name, *ASKED[1:]), lambda: RESOLUTION)
    kept.resolution(store, ("a", *ASKED[1:]), nobody)


def test_with_all_times_yet_to_come_the_newest_stays(
    store: kept.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All other answers have times in the future after the clock was set back."""
    monkeypatch.setattr(kept, "MOST", 1)
    (first,) = answers(tmp_path)
    os.utime(first, (time.time() + 10**6,) * 2)
    kept.resolution(store, ("a", *ASKED[1:]), lambda: RESOLUTION)
    kept.resolution(store, ("a", *ASKED[1:]), nobody)
    assert len(answers(tmp_path)) == 1


def test_an_answer_that_is_too_large_is_given_and_not_kept(
    store: kept.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "LARGEST", 100)
    asked = ("y", *ASKED[1:])
    assert kept.resolution(store, asked, lambda: RESOLUTION) == RESOLUTION
    assert len(answers(tmp_path)) == 1


def test_a_full_disk_costs_no_answer(store: kept.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    assert kept.resolution(store, ("y", *ASKED[1:]), lambda: RESOLUTION) == RESOLUTION
    with pytest.raises(AskedError):
        kept.resolution(store, ("y", *ASKED[1:]), nobody)
    monkeypatch.undo()
    assert kept.resolution(store, ("y", *ASKED[1:]), lambda: RESOLUTION) == RESOLUTION
    assert kept.resolution(store, ("y", *ASKED[1:]), nobody) == RESOLUTION


# The names of apt's files, and the place of its binary cache.


def test_a_list_is_found_as_apt_names_it() -> None:
    characters = [chr(code) for code in range(1, 256)]
    uris = [f"{start}{character}b" for character in characters for start in ("http://h/a", "file:/a")]
    more = ("http://u:p@h:80/x", "http://u@h/x@y", "http://[::1]:8080/x", "http://h", "https://h:443/", "file:x/y")
    uris += [*more, "file:///x/y", "mirror+file:/etc/x.list", "mirror+http://h/x~y", "copy:/a%20b/c_d"]
    assert [releases.list_name(uri) for uri in uris] == [apt_pkg.uri_to_filename(uri) for uri in uris]


@pytest.mark.parametrize("keeps", [True, False])
def test_a_machine_that_keeps_no_binary_cache_gets_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, keeps: bool
) -> None:
    asked: list[tuple[str, ...]] = []

    def output(argv: tuple[str, ...]) -> str:
        asked.append(argv)
        return 'Dir::Cache::pkgcache "pkgcache.bin"\n' if keeps and argv[0] == "apt-config" else ""

    monkeypatch.setattr(run, "output", output)
    monkeypatch.setattr(cache, "directory", lambda: tmp_path)
    left = [tmp_path / "machine" / f"{sources.BINARY_CACHE}.{name}" for name in ("killed", "inuse1")]
    left[0].parent.mkdir()
    for number, file in enumerate(left):
        file.touch()
        os.utime(file, (time.time() - 10**6 * (1 - number),) * 2)
    indextargets.known()
    assert [file.exists() for file in left] == [keeps, True]
    ours = f"Dir::Cache::pkgcache={tmp_path}/machine/{sources.BINARY_CACHE}"
    assert asked[-1] == (*sources.INDEXTARGETS, *(() if keeps else ("-o", ours)))
    tmp_path.chmod(0o777)
    indextargets.known()
    assert asked[-1] == sources.INDEXTARGETS


def test_a_binary_cache_that_cannot_be_written_is_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = "Images|o|l|trixie|http://a|/x|yes|/x:1\n"

    def output(argv: tuple[str, ...]) -> str:
        if "-o" in argv:
            raise Error("apt-get failed: no space is left")
        return row

    monkeypatch.setattr(run, "output", output)
    monkeypatch.setattr(cache, "directory", lambda: tmp_path)
    assert [target.uri for target in indextargets.known("")] == ["http://a"]
