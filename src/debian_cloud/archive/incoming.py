# SPDX-License-Identifier: GPL-3.0-or-later
"""The queue of an archive: it takes the next upload, and moves what it refuses to rejected/ with a reason.

Below the archive: incoming/, into which uploaders write; tmp/upload/, the files of one upload, moved out of
incoming/; tmp/checked/, copies that no other process can have open, the only ones that are read; rejected/NAME.N/,
refused uploads.

incoming/ belongs to others: a file there may be anything, and a process that has it open may write to it later.
Therefore reprepro gets copies, made within the sizes that the signed list gives. The published .changes is its signed
text in a new armour. Nothing else of an upload is read before its signature is verified.

An upload stays in tmp/upload until the state is committed; reprepro, which removes what it has taken, works on links
to the copies. So an interruption leaves either a decision to report, or all files to begin again. What is not an
upload is moved to rejected/ under a name made here; no file is opened before its type and size are checked, and
rejected/ has limits.
"""

from __future__ import annotations

import collections
import errno
import hashlib
import os
import re
import shutil
import stat
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final

from debian_cloud.archive import debfile, upload, uploaders
from debian_cloud.errors import Error
from debian_cloud.host import sign
from debian_cloud.text import openpgp
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from debian_cloud.archive.upload import Changes, Owners
    from debian_cloud.archive.uploaders import Key

LIMITS: Final = {"uploads": 200, "megabytes": 4096, "days": 60}
"""Limits of rejected/, unless conf/rejected has others; the oldest upload is removed first."""
_LONGEST: Final = 190
"""Maximum bytes of an upload's name, without .changes; a longer name is truncated."""
_SUFFIX: Final = ".changes"
_REASON: Final = "reason"
_LINES: Final = 100
"""Maximum lines of a tool's output in a reason."""
_PIECE: Final = 2**20
_SPARE: Final = 2**20
"""Free bytes on the disk; with less, a full disk is taken as the cause if a tool failed."""
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Rules:
    """The upload rules: signing keys, permitted primary keys, their keyring, and the owners of packages."""

    home: Path
    keyring: Path
    keys: Mapping[str, Key]
    allowed: frozenset[str]
    owners: Owners


_KEY: Final = re.compile("^[ \t]*([0-9A-Fa-f]{40})(?=[ \t])", re.MULTILINE)
"""The key at the beginning of a line of conf/uploaders."""


def rules(archive: Path, keyring: Path, keys: Path, owners: Path) -> Rules:
    """The upload rules of an archive, from its conf/uploaders and conf/overrides.

    `keyring` has the uploaders' keys as gpg exports them, `keys` lists them as the step `signing` does; `owners`
    lists the packages of all suites, each with its source.
    """
    overrides = archive / "conf/overrides"
    return Rules(
        archive / "uploaders",
        keyring,
        uploaders.keys(keys.read_text("utf-8", "replace")),
        frozenset(key.upper() for key in _KEY.findall((archive / "conf/uploaders").read_text("utf-8", "replace"))),
        upload.Owners(
            upload.holders(owners.read_text("utf-8")),
            upload.pairs(overrides.read_text("utf-8") if overrides.exists() else "", "conf/overrides"),
        ),
    )


def decide(archive: Path, known: Rules, refused: Path | None = None) -> Iterator[str]:
    """Take the next upload (`Queue.take`), and yield a line to report for each decision.

    With `refused`, the upload that was taken before is refused first, for the reason in that file.
    """
    queue = Queue(archive)
    limits = queue.limits()
    if refused:
        yield queue.refuse(refused.read_text("utf-8", "replace"))
    yield from queue.take(known)
    yield from queue.prune(limits)


class Queue:
    """The incoming/ of an archive whose lock the caller holds."""

    def __init__(self, archive: Path) -> None:
        self._archive = archive
        self._incoming = archive / "incoming"
        self._upload = archive / "tmp/upload"
        self._checked = archive / "tmp/checked"
        self._who = archive / "tmp/uploader"
        self._signed = False
        self._waiting: collections.Counter[str] | None = None
        self._numbers: dict[str, int] | None = None

    def take(self, rules: Rules) -> Iterator[str]:
        """Take the next complete upload of an uploader: its copies are then in tmp/checked.

        It yields the lines to report for the refused uploads before it, and for this one. The upload must be read
        only from tmp/checked; if no upload is left, that is empty.
        """
        try:
            waiting = sorted(path.name for path in self._incoming.iterdir() if _is_changes(path.name))
        except OSError as error:
            raise Error(f"incoming/ cannot be read: {error.strerror}", "create the directory for uploads") from None
        for raw in waiting:
            self._clear()
            name = _safe(raw)
            try:
                if not self._move(raw, name):
                    continue
            except OSError as error:
                yield self._hidden(raw, name, error)
                continue
            self._forget(raw)
            try:
                yield from self._look(name, rules)
            except uploaders.NotSignedError as error:
                yield self._set_aside(raw, name, error, error.key)
            except Error as error:
                yield self._set_aside(raw, name, error, None)
            except OSError as error:
                if error.errno in _FULL:
                    shutil.rmtree(self._checked)
                    raise _full(name) from None
                yield self._set_aside(raw, name, Error(f"it cannot be read: {error.strerror}"), None)
            except (ValueError, LookupError, ArithmeticError, TypeError, AttributeError) as error:
                # An unknown defect of a reader; the next upload is decided all the same.
                yield self._set_aside(
                    raw, name, Error(f"it cannot be read: {type(error).__name__} in a reader"), None
                )
            else:
                return
        self._clear()

    def refuse(self, said: str) -> str:
        """Refuse the upload that was taken, for the reason `said`, and return the line to report.

        Error on a full disk.
        """
        (name,) = (path.name for path in self._checked.glob("*.changes"))
        if "No space left on device" in said or shutil.disk_usage(self._archive).free < _SPARE:
            shutil.rmtree(self._checked)
            raise _full(name)
        return self._keep(name, said)

    def limits(self) -> dict[str, int]:
        """The limits of rejected/, from conf/rejected; Error at the first line that is not a limit."""
        limits = dict(LIMITS)
        for number, line in enumerate(_text(self._archive / "conf/rejected").splitlines(), 1):
            words = line.partition("#")[0].split()
            if words and (len(words) != 2 or words[0] not in LIMITS or not re.fullmatch("[0-9]{1,9}", words[1])):
                raise Error(
                    f"conf/rejected, line {number}: {printable(line)!r} is not a limit",
                    f"a line is one of: {', '.join(f'{word} NUMBER' for word in LIMITS)}",
                )
            if words:
                limits[words[0]] = int(words[1])
        return limits

    def prune(self, limits: Mapping[str, int]) -> Iterator[str]:
        """Remove the uploads that exceed the limits of rejected/, the oldest first, and yield the lines to report.

        Days are counted back from the newest upload: a clock that is wrong today removes nothing.
        """
        kept = sorted(
            ((_time(path), path) for path in (self._archive / "rejected").iterdir()),
            key=lambda one: (one[0], one[1].name),
        )
        sizes = [_size(path) for _, path in kept]
        total = sum(sizes)
        last = kept[-1][0] if kept else 0
        gone: dict[str, list[str]] = {}
        for number, ((when, path), size) in enumerate(zip(kept, sizes, strict=True), 1):
            left = len(kept) - number + 1
            if left > limits["uploads"]:
                why = f"there are more than {limits['uploads']}"
            elif last - when > limits["days"] * 86400:
                why = f"it is more than {limits['days']} days older than the last"
            elif total > limits["megabytes"] * 10**6:
                why = f"all together have more than {limits['megabytes']} MB"
            else:
                break
            total -= size
            if left > 1:
                _remove(path)
                gone.setdefault(why, []).append(printable(path.name))
                continue
            # At least the reason and the .changes of the newest upload stay.
            for inner in path.iterdir():
                if inner.name != _REASON and not inner.name.endswith(_SUFFIX):
                    _remove(inner)
            yield f"removed: files of rejected/{printable(path.name)}: {why}"
        for why, names in gone.items():
            some = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}, {len(names)} uploads"
            yield f"removed: rejected/{some}: {why}"

    def _look(self, name: str, rules: Rules) -> Iterator[str]:
        """Read an upload, and yield the lines to report; Error if it is refused."""
        text = self._text_of(name)
        if not openpgp.is_cleartext(text):
            raise uploaders.NotSignedError(
                "it is not signed by an uploader: it does not begin like a signed text",
                "run debsign -k KEY FILE.changes, and upload it again",
            )
        try:
            # Before gpg(1) reads it: if an armour holds other content, gpg unpacks that without a limit.
            clear = openpgp.cleartext(text)
        except Error as error:
            raise uploaders.NotSignedError(
                f"it is not signed by an uploader: {error.message}",
                "run debsign -k KEY FILE.changes, and upload it again",
            ) from None
        own = self._checked / name
        own.write_bytes(text)
        key = uploaders.signer(rules.home, own, rules.keys, rules.allowed)
        self._who.write_text(f"{key}\n", "utf-8")
        # What the signature does not cover, such as armour headers or blanks at line ends, is not published.
        own.write_bytes(clear.document())
        signed = sign.verified(rules.keyring, own)
        if signed.signers != (key.owner,):
            raise Error("it is not signed by the key that it names", "sign it with the key of one uploader")
        self._signed = True
        self._gather(_names(signed.content))
        found = upload.changes(signed.content)
        for one in found.files:
            self._copy(one)
        yield from self._judge(found, rules.owners)

    def _text_of(self, name: str) -> bytes:
        """The content of the .changes."""
        path = self._upload / name
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise Error(f"{name} is not a regular file", "upload the .changes itself")
        if status.st_size > upload.LARGEST_TEXT:
            raise Error(
                f"{name} has {status.st_size} bytes, but a .changes may have only {upload.LARGEST_TEXT}",
                "sign and upload what dpkg-genchanges writes",
            )
        with _opened(path, name) as file:
            return file.read(upload.LARGEST_TEXT)

    def _gather(self, names: tuple[str, ...], owner: int | None = None) -> None:
        """Move the files of an upload, only those of `owner` if given, and none that another upload lists."""
        waiting = self._others() if names else collections.Counter[str]()
        for one in names:
            if waiting[one]:
                continue
            try:
                if owner is None or (self._incoming / one).lstat().st_uid == owner:
                    self._move(one, one)
            except OSError:
                continue

    def _copy(self, one: upload.Listed) -> None:
        """Copy a file that the .changes lists; Error if it differs. From then on only the copy is read."""
        path = self._upload / one.name
        if not os.path.lexists(path):
            path = self._incoming / one.name
        try:
            status = path.lstat()
        except FileNotFoundError:
            raise Error(f"{one.name!r} not found", "upload every file that the .changes lists") from None
        if not stat.S_ISREG(status.st_mode):
            raise Error(f"{one.name} is not a regular file", "upload the file itself, not a link to it")
        if status.st_size != one.size:
            raise Error(
                f"{one.name} has {status.st_size} bytes, which does not match the {one.size} in the .changes",
                "upload the complete file again",
            )
        digest, left = hashlib.sha256(), one.size
        with _opened(path, one.name) as source, (self._checked / one.name).open("xb") as target:
            while piece := source.read(min(left, _PIECE)):
                digest.update(piece)
                target.write(piece)
                left -= len(piece)
        if left or digest.hexdigest() != one.sha256:
            raise Error(
                f"the SHA-256 of {one.name} does not match the one in the .changes",
                "sign the files as they are now (debsign), and upload all of them again",
            )

    def _judge(self, found: Changes, owners: Owners) -> Iterator[str]:
        """Read the packages of an upload, and yield the lines to report; Error if it is refused."""
        names = [found.source, *found.binaries]
        packages = [one for one in found.files if one.section != upload.IMAGES]
        for one in packages:
            path = self._checked / one.name
            kind = upload.kind(found, one.name)
            if kind == "deb":
                names += upload.provided(upload.binary(found, one.name, debfile.control(path)))
            elif kind == "dsc":
                names += upload.claimed(upload.source(found, one.name, _signed_or_not(path)))
            elif kind == "buildinfo":
                upload.buildinfo(found, one.name, _signed_or_not(path))
        # The source of an image is debian-cloud, whatever the source of its configuration.
        if packages:
            yield from (f"overridden: {note}" for note in owners.notes(found.source, names))

    def _set_aside(self, raw: str, name: str, error: Error, key: Key | None) -> str:
        """Refuse the upload in tmp/upload, with the files that it lists, and return the line to report."""
        if key is not None:
            self._who.write_text(f"{key}\n", "utf-8")
        path = self._upload / name
        status = path.lstat()
        if stat.S_ISREG(status.st_mode) and status.st_size <= upload.LARGEST_TEXT:
            try:
                with _opened(path, name) as file:
                    names = _names(file.read(upload.LARGEST_TEXT))
            except Error:
                names = ()
            # Without a verified signature, an upload may not move the files of other users.
            self._gather(names, None if self._signed else status.st_uid)
        said = f"error: {error.message}\nhint: {error.hint or 'fix that, sign it again, and upload it again'}"
        if name != raw:
            said += f"\nname: {printable(raw)}"
        return self._keep(name, said)

    def _keep(self, name: str, said: str) -> str:
        """Move tmp/upload to rejected/, with a reason without control characters, and return the line to report."""
        lines = [printable(line.removeprefix("debian-cloud: ")) for line in said.splitlines()[:_LINES]]
        while lines and not lines[0]:
            del lines[0]
        if not any(line.startswith("error: ") for line in lines):
            lines.insert(0, "error: it was refused for the reason below")
        if not any(line.startswith("hint: ") for line in lines):
            lines.append("hint: fix that, sign it again, and upload it again")
        who = _text(self._who).strip()
        (self._upload / _REASON).write_text("\n".join([f"uploader: {who}"] * bool(who) + lines) + "\n", "utf-8")
        (self._upload / _REASON).chmod(0o644)
        # A file that another upload lists was not moved: its copy is kept.
        for copy in self._checked.iterdir():
            if not os.path.lexists(self._upload / copy.name):
                copy.replace(self._upload / copy.name)
        self._upload.chmod(0o755)
        kept = f"{name}.{self._number(name)}"
        self._upload.rename(self._archive / "rejected" / kept)
        self._clear()
        error = next(line for line in lines if line.startswith("error: ")).removeprefix("error: ")
        return f"refused: {name}: {error} (kept: rejected/{kept})"

    def _number(self, name: str) -> int:
        """The next number for the name of an upload in rejected/."""
        if self._numbers is None:
            self._numbers = {}
            for path in (self._archive / "rejected").iterdir():
                stem, _, number = path.name.rpartition(".")
                if re.fullmatch("[0-9]{1,9}", number):
                    self._numbers[stem] = max(self._numbers.get(stem, 0), int(number))
        self._numbers[name] = self._numbers.get(name, 0) + 1
        return self._numbers[name]

    def _others(self) -> collections.Counter[str]:
        """Name of a waiting file -> number of waiting .changes that list it."""
        if self._waiting is None:
            there = frozenset(path.name for path in self._incoming.iterdir())
            self._waiting = collections.Counter()
            for raw in filter(_is_changes, there):
                self._waiting.update(name for name in self._listed(self._incoming / raw) if name in there)
        return self._waiting

    def _forget(self, raw: str) -> None:
        """Stop counting a .changes that is now in tmp/upload as waiting."""
        if self._waiting is not None:
            self._waiting.subtract(name for name in self._listed(self._upload / _safe(raw)) if name in self._waiting)

    def _listed(self, path: Path) -> tuple[str, ...]:
        try:
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode) or status.st_size > upload.LARGEST_TEXT:
                return ()
            with _opened(path, path.name) as file:
                return _names(file.read(upload.LARGEST_TEXT))
        except (OSError, Error):
            return ()

    def _move(self, raw: str, name: str) -> bool:
        """Move a file from incoming/ to tmp/upload, and return whether it was there."""
        source, target = self._incoming / raw, self._upload / name
        try:
            source.rename(target)
        except FileNotFoundError:
            return False
        except OSError as error:
            # incoming/ is on another file system; what is not a regular file stays there, and is hidden.
            if error.errno != errno.EXDEV or not stat.S_ISREG(source.lstat().st_mode):
                raise
            shutil.copyfile(source, target, follow_symlinks=False)
            source.unlink()
        return True

    def _hidden(self, raw: str, name: str, error: OSError) -> str:
        """Rename what cannot be moved to a name that is not that of an upload, and return the line to report."""
        if error.errno in _FULL:
            raise _full(name) from None
        number = 1
        while os.path.lexists(hidden := self._incoming / f".refused.{number}"):
            number += 1
        try:
            (self._incoming / raw).rename(hidden)
        except OSError as again:
            return f"refused: {name}: it cannot be moved: {again.strerror} (it stays in incoming/)"
        return f"refused: {name}: it cannot be moved: {error.strerror} (kept: incoming/.refused.{number})"

    def _clear(self) -> None:
        """Empty tmp/upload and tmp/checked for the next upload."""
        for folder in (self._upload, self._checked):
            # tmp/upload first: of an upload that is partly removed, nothing must be left to decide.
            for path in folder.iterdir() if folder.is_dir() else ():
                _remove(path)
            folder.mkdir(mode=0o755, exist_ok=True)
        self._who.unlink(missing_ok=True)
        self._signed = False


def _is_changes(name: str) -> bool:
    return name.endswith(_SUFFIX) and not name.startswith(".")


def _names(text: bytes) -> tuple[str, ...]:
    """The names that a .changes seems to list, decoded like file names."""
    return tuple(map(os.fsdecode, upload.listed(text)))


def _safe(raw: str) -> str:
    """A name that is not an option, has no blanks, and leaves room for a suffix."""
    plain = re.sub(r"[^A-Za-z0-9.+~_-]", "_", raw.removesuffix(_SUFFIX)[:_LONGEST])
    return re.sub("^-", "_", plain or "_") + _SUFFIX


def _opened(path: Path, name: str) -> IO[bytes]:
    """Open a regular file to read; Error if it is not one, or no longer one."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Error(
            f"{name} cannot be read: {error.strerror}", "run chmod 644 on all files, and upload them again"
        ) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Error(f"{name} is not a regular file", "upload the file itself, not a link to it")
    return os.fdopen(descriptor, "rb")


def _signed_or_not(path: Path) -> bytes:
    """The text of a .dsc or .buildinfo, for which the .changes vouches, whether it is signed or not."""
    if path.stat().st_size > upload.LARGEST_TEXT:
        raise Error(f"{path.name} has {path.stat().st_size} bytes, but may have only {upload.LARGEST_TEXT}")
    try:
        return openpgp.inner(path.read_bytes())
    except Error as error:
        raise Error(f"{path.name}: {error.message}", error.hint) from None


def _text(path: Path) -> str:
    return path.read_text("utf-8", "replace") if path.exists() else ""


def _full(name: str) -> Error:
    return Error(f"there is no space left for {name}", "it stays in the queue: free some space, and accept again")


def _time(path: Path) -> float:
    return path.lstat().st_mtime


def _size(path: Path) -> int:
    """Bytes that a directory takes on the disk."""
    return sum(one.lstat().st_blocks * 512 for one in (path, *path.rglob("*")) if os.path.lexists(one))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
