# SPDX-License-Identifier: GPL-3.0-or-later
"""Remove the secrets and identities that packages made in a root file system, or find and report them.

What each machine makes again is removed before times are clamped, and the packages are listed in
/var/lib/debian-cloud/renew; at the first boot `debian-cloud-renew.service` of the layer `common` makes it for only
those packages, so a key that an administrator removed stays removed. What it cannot make fails the build until the
configuration decides (`Image-Drop-Secrets`, `Image-Keep-Secrets`). So does what is in no list: keys by their form, in
the tree and in every archive of the initrd; a file that no package ships and that others may not read; a random id;
a copy, under any name, of what is removed. An initrd with data after its archives is refused. Content that a package
ships is public wherever it is (its MD5 is in dpkg's database). Files of packages in /usr are searched only for such
copies.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import re
import stat
from dataclasses import dataclass
from functools import cached_property
from typing import IO, TYPE_CHECKING, Final, cast

from debian_cloud.disk import initrd
from debian_cloud.errors import Error
from debian_cloud.host import files, run
from debian_cloud.image import identities
from debian_cloud.image.generated import generator, matches
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_OF_PACKAGES: Final = ("usr/", "bin/", "sbin/", "lib")
"""Files of packages here are as shipped: they are public, and are not read."""
_OF_UCF: Final = "var/lib/ucf/cache/:"
_OF_NOBODY: Final = (_OF_UCF, "usr/local/")
"""Paths in the list of generated files that can have any content: copies, and directories that should be empty."""
_MANY: Final = 3
"""Most files of one directory closed to others that are reported one by one."""
_LONGEST: Final = 2**20
"""Most bytes of a file of the initrd that are searched; programs and modules are longer."""
_MOST: Final = 2**26
"""Most bytes of a file of the tree that are searched."""
_SHORTEST: Final = 16
"""Fewest bytes that cannot be guessed; shorter content may be the same elsewhere by chance."""
_COPY: Final = "a copy of a file that was removed elsewhere, because each machine creates its own"
_INITRDS: Final = ("boot/init*", "boot/**/init*")
_ID_IN: Final = ("etc/", "var/lib/")
_INFO: Final = "var/lib/dpkg/info"
_LARGEST_ID: Final = 2**16
"""Most bytes of a file that is searched for an identifier; a database has many that identify no machine."""
_ALONE: Final = ("/usr/bin/env", "-i", "PATH=/usr/bin:/bin")
"""Prefix of commands in the tree: they must not see our environment, which may contain a proxy's password."""
_UNPACKED_BY: Final = {
    "zstd": ("zstd", "-dcq"),
    "lz4": ("lz4", "-dcq"),
    "lzop": ("lzop", "-dc"),
}
"""The tree's own tools, which compressed the initrd; Python decompresses the other formats."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A path that everybody could read, what is in it, and its package, if known."""

    path: str
    what: str
    package: str

    def __str__(self) -> str:
        whose = f" ({printable(self.package)})" if self.package else ""
        return f"/{printable(self.path)}{whose}: {self.what}"


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """The paths that were removed, and the secrets that must not stay."""

    removed: tuple[str, ...]
    secrets: tuple[Secret, ...]


def shown(path: str) -> str:
    """Return a path of the tree, safe to print on a terminal."""
    return f"/{printable(path)}"


def scrub(tree: Path, keep: Iterable[str] = (), drop: Iterable[str] = ()) -> Scrubbed:
    """Remove what each machine makes for itself, and find what else should belong to one machine only.

    `keep` and `drop` are paths as in `generated.GENERATED` on which the configuration has decided.
    `identities.RENEWED` is written if the layer has to make something again.
    """
    keep, drop = tuple(keep), tuple(drop)
    shipped = _Shipped(tree)
    removed: dict[str, identities.Identity | None] = {}
    found: dict[str, list[tuple[str, str]]] = {}
    initrds: list[str] = []
    for path, closed in _files(tree):
        if path.startswith("boot/") and any(matches(pattern, path) for pattern in _INITRDS):
            initrds.append(path)
            continue
        decided = _original(path)
        if any(matches(pattern, decided) for pattern in keep):
            continue
        known = identities.identity(decided)
        if known and _renewable(tree, known):
            removed[path] = known
        elif what := _found(tree, path, shipped, closed=bool(closed), known=known):
            if any(matches(pattern, decided) for pattern in drop):
                removed[path] = None
            else:
                found.setdefault(closed or path, []).append((path, what))
    # Not for what a configuration drops, such as databases: it has decided by paths.
    gone = _Gone(tree, (path for path, known in removed.items() if known), shipped)
    told = {path for some in found.values() for path, _ in some}
    for path in gone.copies(tree, {*removed, *told, *initrds}):
        decided = _original(path)
        if any(matches(pattern, decided) for pattern in drop):
            removed[path] = None
        elif not any(matches(pattern, decided) for pattern in keep):
            found[path] = [(path, _COPY)]
    _remove(tree, removed)
    secrets = [secret for folder, some in found.items() for secret in _told(folder, some, shipped)]
    for path in initrds:
        secrets += _in_initrd(tree, path, shipped, keep, gone)
    return Scrubbed(tuple(removed), tuple(secrets))


class _Gone:
    """The content of what each machine makes for itself: a copy or a hard link under any name discloses it."""

    def __init__(self, tree: Path, paths: Iterable[str], shipped: _Shipped) -> None:
        self._known: set[bytes] = set()
        for path in paths:
            content = _beginning(tree / path)
            if _SHORTEST <= len(content) <= _LONGEST and not shipped.has(content):
                self._known.add(content)
        self._sizes = {len(content) for content in self._known}

    def has(self, content: bytes) -> bool:
        """Return whether a removed file had this content."""
        return content in self._known

    def copies(self, tree: Path, known: set[str]) -> Iterator[str]:
        """Yield the paths of other files with the same content, except those in `known`."""
        for path, _ in _files(tree) if self._known else ():
            file = tree / path
            if path not in known and file.lstat().st_size in self._sizes and self.has(_beginning(file)):
                yield path


def _beginning(file: Path) -> bytes:
    """Return the content of a file, at most one byte more than _LONGEST."""
    with files.opened(file) as opened:
        return opened.read(_LONGEST + 1)


def _original(path: str) -> str:
    """Return a path, or, if it is a copy that ucf(1) keeps, the path of the original."""
    return path.removeprefix(_OF_UCF).replace(":", "/") if path.startswith(_OF_UCF) else path


def _told(folder: str, some: list[tuple[str, str]], shipped: _Shipped) -> Iterator[Secret]:
    """Yield what was found in a directory that is closed to others: each path, or many as one."""
    if len(some) <= _MANY:
        for path, what in some:
            known = identities.identity(path)
            yield Secret(path, what, known.package if known else shipped.owner(path))
    else:
        yield Secret(
            f"{folder}/**", f"{len(some)} files, such as {shown(some[0][0])}: {some[0][1]}", shipped.owner(folder)
        )


def _renewable(tree: Path, known: identities.Identity) -> bool:
    by_layer = known.package in identities.BY_LAYER and _is_there(tree, identities.RENEWAL)
    return by_layer or (bool(known.renewed) and _is_there(tree, known.renewed))


def _is_there(tree: Path, path: str) -> bool:
    """Return whether the tree has a path, or a dangling symlink, which may have a target in the image."""
    return os.path.lexists(tree / path)


def _remove(tree: Path, removed: dict[str, identities.Identity | None]) -> None:
    """Remove files, and the symlinks to them in the same directory (certificates have names by their hash)."""
    for path in removed:
        (tree / path).unlink()
    gone = {str(tree / path) for path in removed}
    for folder in {(tree / path).parent for path in removed}:
        for link in sorted(folder.iterdir()):
            if link.is_symlink() and str(folder / link.readlink()) in gone:
                link.unlink()
    renewed = {
        known.package
        for known in removed.values()
        if known and (known.renewed == identities.RENEWAL or not _is_there(tree, known.renewed))
    }
    if renewed:
        _note(tree, "".join(f"{name}\n" for name in sorted(renewed)))


def _note(tree: Path, text: str) -> None:
    """Write RENEWED without following symlinks: a package's could lead out of the tree, and we may be root."""
    *folders, name = identities.RENEWED.split("/")
    with contextlib.ExitStack() as stack:

        def opened(path: str | Path, flags: int, within: int | None = None) -> int:
            descriptor = os.open(path, flags | os.O_CLOEXEC, 0o644, dir_fd=within)
            stack.callback(os.close, descriptor)
            return descriptor

        try:
            place = opened(tree, os.O_DIRECTORY)
            for folder in folders:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(folder, 0o755, dir_fd=place)
                place = opened(folder, os.O_DIRECTORY | os.O_NOFOLLOW, place)
            # Remove what has that name, whatever it leads to.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=place)
            descriptor = opened(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, place)
        except OSError as error:
            raise Error(
                f"/{identities.RENEWED} cannot be written: {error.strerror}",
                "a package has another file there, or in place of its directory: remove that package",
            ) from None
        os.fchmod(descriptor, 0o644)
        os.write(descriptor, text.encode("ascii"))


class _Shipped:
    """What dpkg knows: the MD5 of what packages ship, and the package of each path."""

    def __init__(self, tree: Path) -> None:
        info = tree / _INFO
        self.info = info
        self.owners: dict[str, list[str]] = {}
        self.md5: set[bytes] = set()
        merged = {
            f"/{name}/": f"usr/{name}/" for name in ("bin", "sbin", "lib", "lib64") if (tree / name).is_symlink()
        }
        self.packages = {listed.name.removesuffix(".list") for listed in info.glob("*.list")}
        for listed in sorted(info.glob("*.list")):
            package = listed.name.removesuffix(".list").partition(":")[0]
            for line in _of_dpkg(listed).decode("utf-8", "surrogateescape").split("\n"):
                first = line[: line.find("/", 1) + 1]
                path = merged[first] + line[len(first) :] if first in merged else line[1:]
                self.owners.setdefault(path, []).append(package)
        for listed in info.glob("*.md5sums"):
            self.md5.update(line[:32] for line in _of_dpkg(listed).split(b"\n"))
        status = _of_dpkg(tree / "var/lib/dpkg/status")
        self.md5.update(re.findall(rb"(?m)^ /\S.* ([0-9a-f]{32})(?: obsolete)?$", status))

    def controls(self, path: str) -> bool:
        """Return whether a path is a control file of a package (deb(5)), which no .md5sums lists.

        Some maintainer scripts have an identifier of their source in a comment: ucf's of Debian 12.
        """
        folder, _, name = path.rpartition("/")
        return folder == _INFO and name.rpartition(".")[0] in self.packages

    def has(self, content: bytes) -> bool:
        """Return whether a package ships exactly this content."""
        return hashlib.md5(content, usedforsecurity=False).hexdigest().encode() in self.md5

    @cached_property
    def _scripts(self) -> tuple[tuple[str, bytes], ...]:
        return tuple(
            (script.name.rpartition(".")[0].partition(":")[0], _of_dpkg(script))
            for script in sorted(self.info.iterdir())
            if script.suffix in (".postinst", ".preinst", ".config")
        )

    def owner(self, path: str) -> str:
        """Return the package that owns a path, or whose maintainer script names it, or that owns its directory."""
        if path in self.owners:
            return ", ".join(self.owners[path])
        word = f"/{path}".encode(errors="surrogateescape")
        if names := [package for package, script in self._scripts if word in script]:
            return ", ".join(dict.fromkeys(names))
        while path := path.rpartition("/")[0]:
            if len(owners := self.owners.get(path, [])) in range(1, 4):
                return ", ".join(owners)
        return ""


def _of_dpkg(file: Path) -> bytes:
    """Return the content of a file of dpkg's database, which a package may have written itself."""
    return files.read(file, _MOST)


def _files(tree: Path) -> Iterator[tuple[str, str]]:
    """Yield every regular file, and what closes it to others: itself, or the topmost such directory; "" if open."""
    pending = [("", "")]
    while pending:
        folder, closed = pending.pop()
        with os.scandir(tree / folder) as listed:
            entries = sorted(listed, key=lambda entry: entry.name)
        within = []
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir(follow_symlinks=False):
                mode = entry.stat(follow_symlinks=False).st_mode
                within.append((path, closed or ("" if mode & stat.S_IXOTH else path)))
            elif entry.is_file(follow_symlinks=False):
                mode = entry.stat(follow_symlinks=False).st_mode
                yield path, closed or ("" if mode & stat.S_IROTH else path)
        pending += reversed(within)


def _found(tree: Path, path: str, shipped: _Shipped, *, closed: bool, known: identities.Identity | None) -> str:
    """Return what secret or identity is in a file, in words; "" if there is none."""
    # What packages ship in /usr is public, and so is what is made from that.
    in_usr = path.startswith(_OF_PACKAGES)
    if in_usr and path in shipped.owners:
        return ""
    makes = "" if path.startswith(_OF_NOBODY) else generator(path)
    if in_usr and makes:
        return ""
    with (tree / path).open("rb") as file:
        content = file.read(_MOST)
    if not content:
        return ""
    what = known.what if known else identities.secret(path, content)
    if not what and not makes:
        if closed:
            what = "no package ships it, and other users may not read it"
        elif (
            path.startswith(_ID_IN)
            and not shipped.controls(path)
            and len(content) <= _LARGEST_ID
            and identities.host_id(content)
        ):
            what = "no package ships it, and it has a random identifier"
    return what if what and not shipped.has(content) else ""


def _in_initrd(tree: Path, where: str, shipped: _Shipped, keep: tuple[str, ...], gone: _Gone) -> Iterator[Secret]:
    """Yield the secrets in an initrd: they cannot be removed there, nor made again before the machine runs."""
    with contextlib.ExitStack() as stack:
        source = stack.enter_context((tree / where).open("rb"))

        def unpack(name: str, packed: IO[bytes]) -> IO[bytes]:
            if name == "gzip":
                return cast("IO[bytes]", stack.enter_context(gzip.open(packed)))
            if name in files.DECODERS:
                return files.streams(packed, name)
            return stack.enter_context(run.through(("chroot", str(tree), *_ALONE, *_UNPACKED_BY[name]), packed))

        try:
            for member in initrd.members(source, unpack, _LONGEST):
                known = identities.identity(member.path)
                what = known.what if known else identities.secret(member.path, member.content)
                what = what or (_COPY if gone.has(member.content) else "")
                place = f"{where}:{member.path}"
                if not what or any(matches(pattern, place) for pattern in keep) or shipped.has(member.content):
                    continue
                yield Secret(place, what, known.package if known else shipped.owner(member.path))
        except (initrd.UnreadableError, *files.BROKEN) as error:
            yield Secret(where, f"it cannot be searched: {error}", "")
