# SPDX-License-Identifier: GPL-3.0-or-later
"""What of ours is measured, and apt-cache beside it: commands with the archive, the cache and the image they need."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.caches import DEBS, LAYERS, NOTHING, Begin, Caches
from bench.mirror import Mirror
from debian_cloud.host import memory
from debian_cloud.packages import described
from tests import throwaway
from tests.command import SOURCE, STEP
from tests.packaging.build import built_packages

CONFIG: Final = "ec2"
VENDORS: Final = (CONFIG, "azure", "gce", "generic", "genericcloud", "openstack")

COLD: Final = "cold build, raw"
COLD_DISK: Final = "cold build, raw, tree on disk"
COLD_QCOW2: Final = "cold build, raw and qcow2"
COLD_FETCHED: Final = "cold build, raw, .debs not cached"
WARM: Final = "warm build, one drop-in changed"
UPDATED: Final = "warm build, after an update of libc6"
SIX: Final = "six vendors, nothing cached but .debs"
SAME: Final = "the same build again, nothing changed"
VERIFY: Final = "verify, and make it again"
VERIFY_LAYERS: Final = "verify, and make it again from layers"
VERIFY_MADE: Final = "verify, made again before"
LIST: Final = "list"
SHOW: Final = "show"
PLAN: Final = "plan, second time"
APT_CACHE: Final = "apt-cache show"
FLOOR: Final = "the floor: decompress all .debs, write the files once"

DROP_IN: Final = Path("usr/lib/systemd/timesyncd.conf.d/debian-cloud-config.conf")
"""The drop-in of the vendor's that is changed."""
UPDATED_PACKAGE: Final = "libc6"
"""The package of the first stage that is taken as updated."""
_SAVED: Final = CONFIG
"""Name of the cache after a build of the image."""
_SAVED_SIX: Final = "six"
"""Name of the cache with the .debs of all vendors."""


@dataclass(frozen=True, slots=True)
class Work:
    """One command, what the cache has before it, and variables of its environment.

    It runs while `around` lasts, which is not measured. If it is `watched`, its scratch space is looked at in the
    round that is not measured.
    """

    argv: Sequence[str | Path]
    cache: Begin = NOTHING
    env: Mapping[str, str] = field(default_factory=dict)
    around: Callable[[], AbstractContextManager[None]] = nullcontext
    watched: bool = False


@dataclass(frozen=True, slots=True)
class Served:
    """The archive of configurations as commands see it: always at one address, `before` or `after` an upload."""

    top: Path

    @property
    def sources(self) -> tuple[str, ...]:
        """The arguments that make it the source of configurations."""
        return tuple(throwaway.Published(self.top).sources)

    def add(self, name: str, archive: throwaway.Archive) -> None:
        """Take what an archive has published, under a name for `show`."""
        self.top.mkdir(exist_ok=True)
        shutil.copyfile(archive.keyring, self.top / archive.keyring.name)
        subprocess.run(["cp", "--archive", archive.public, self.top / name], check=True)

    def show(self, name: str) -> None:
        """Have what was taken under this name at the address."""
        link = self.top / "next"
        link.symlink_to(name)
        link.rename(self.top / "public")

    @contextmanager
    def changed(self) -> Iterator[None]:
        """Show what was uploaded, for one work."""
        self.show("after")
        try:
            yield
        finally:
            self.show("before")


@dataclass(frozen=True, slots=True)
class Prepared:
    """An archive of the configurations, and what is built from: arguments of all verbs."""

    top: Path
    archive: throwaway.Archive
    served: Served
    mirror: Mirror
    caches: Caches

    @property
    def sources(self) -> tuple[str, ...]:
        """Where Debian and the configurations come from."""
        return ("--mirror", self.mirror.main, "--security-mirror", self.mirror.security, *self.served.sources)

    def packages(self, env: Mapping[str, str]) -> tuple[str, ...]:
        """The packages of Debian in the image; ours, which configure it, are left out."""
        shown = self._output(("debian-cloud", "show", CONFIG, "--json", *self.sources), env)
        names = (str(package["name"]) for package in json.loads(shown)["packages"])
        return tuple(sorted(name for name in names if not name.startswith("debian-cloud")))

    def works(self, env: Mapping[str, str]) -> dict[str, Work]:
        """Name -> command. An image is built first, for those that verify it, and a cache filled."""
        build = ("debian-cloud", "build", CONFIG, "--quiet")
        made: tuple[str | Path, ...] = (*build, "--format", "raw", "--output", self.top / "image", *self.sources)
        to = ("--format", "raw", "--output", "out", *self.sources)
        cold = (*build, *to)
        asked = {
            LIST: ("debian-cloud", "list", *self.sources),
            SHOW: ("debian-cloud", "show", CONFIG, *self.sources),
            PLAN: ("debian-cloud", "plan", CONFIG, *self.sources),
        }
        several = ("debian-cloud", "build", *VENDORS, "--quiet", "--jobs", str(os.cpu_count() or 1), *to)
        self._fill(made, (*asked.values(),), several, env)
        image, buildinfo = (next((self.top / "image").glob(f"*.{suffix}")) for suffix in ("raw", "buildinfo"))
        verify: tuple[str | Path, ...] = ("debian-cloud", "verify", "--quiet", image)
        # The loopback is not a mirror of Debian's that a machine knows.
        verify += ("--closure", self._closure(buildinfo, env), "--keyring", self.archive.keyring, "--unsigned")
        verify += self.sources[:4]
        debs, kept = Begin(_SAVED, DEBS), Begin(_SAVED, kept=True)
        return {
            COLD: Work(cold, debs, watched=True),
            COLD_DISK: Work(cold, debs, {memory.NEVER: "1"}, watched=True),
            COLD_QCOW2: Work((*build, "--format", "raw,qcow2", "--output", "out", *self.sources), debs),
            COLD_FETCHED: Work(cold),
            WARM: Work(cold, Begin(_SAVED, None), around=self.served.changed),
            UPDATED: Work(cold, Begin(_SAVED, None, gone=outdated(buildinfo))),
            SIX: Work(several, Begin(_SAVED_SIX, DEBS)),
            SAME: Work(made, kept),
            VERIFY: Work(verify),
            VERIFY_LAYERS: Work(verify, Begin(_SAVED, LAYERS)),
            VERIFY_MADE: Work((*verify, "--rebuilt", image)),
            **{name: Work(argv, kept) for name, argv in asked.items()},
            APT_CACHE: Work(("apt-cache", "show", "bash")),
            FLOOR: Work(floor(self.caches.debs(_SAVED), self.top / "names")),
        }

    def _fill(
        self,
        made: Sequence[str | Path],
        asked: Sequence[Sequence[str]],
        several: Sequence[str],
        env: Mapping[str, str],
    ) -> None:
        """Save a cache as it is after a build of the image and some questions, then the .debs of all vendors."""
        for argv in (made, *asked):
            self._output(argv, env)
        self.caches.save(_SAVED)
        others = self.top / "others"
        others.mkdir()
        self._output(several, env, others)
        shutil.rmtree(others)
        self.caches.save(_SAVED_SIX, DEBS)

    def _closure(self, buildinfo: Path, env: Mapping[str, str]) -> Path:
        closure = self.top / "closure"
        step = (*STEP, "closure", buildinfo, closure, "--pool", self.top / "pool")
        home = ("--homedir", self.archive.folder / "gnupg")
        self._output((*step, *home, *self.sources), {**env, "PYTHONPATH": str(SOURCE)})
        return closure

    def _output(self, argv: Sequence[str | Path], env: Mapping[str, str], folder: Path | None = None) -> str:
        """What a command prints that uses the bench's cache, as all works do."""
        command = self.caches.command(argv)
        return subprocess.run(
            command, env=dict(env), cwd=folder, stdout=subprocess.PIPE, text=True, check=True
        ).stdout


def outdated(buildinfo: Path) -> tuple[str, ...]:
    """What of a cache a build cannot use after a security update of a package of the first stage, as patterns.

    Only Debian could sign a real one. The id of every layer covers the packages of the first stage; the indexes of
    the security suite are others, and so are apt's binary cache and what it resolves.
    """
    (sha256,) = (one.sha256 for one in described.of(buildinfo).packages if one.name == UPDATED_PACKAGE)
    return ("layers", f"packages/{sha256}", "*/lists/*-security_*", "*/cache/pkgcache.bin", "*/resolved")


def floor(debs: Path, names: Path) -> tuple[str | Path, ...]:
    """The command that unpacks all files of a directory, on all processors, without dpkg; it writes `names`."""
    # The largest first, so that no processor is left with a large one at the end.
    found = sorted((path for path in debs.iterdir() if path.is_file()), key=lambda path: -path.stat().st_size)
    names.write_text("".join(f"{path.name}\n" for path in found))
    # One directory each: in one tree, packages would wait for the links of others.
    at_once = ("xargs", f"--arg-file={names}", f"--max-procs={os.cpu_count() or 1}", "--replace={}")
    return (*at_once, "dpkg-deb", "--extract", f"{debs}/{{}}", "{}")


def changed(deb: Path, folder: Path, drop_in: Path = DROP_IN) -> Path:
    """Make the next version of a package in a directory, with one more line in a drop-in; its path."""
    tree = folder / "tree"
    subprocess.run(["dpkg-deb", "--raw-extract", deb, tree], check=True)
    control = tree / "DEBIAN/control"
    lines = control.read_text().splitlines()
    control.write_text("".join(f"{line}+1\n" if line.startswith("Version: ") else f"{line}\n" for line in lines))
    with (tree / drop_in).open("a") as file:
        file.write("# One more line.\n")
    # It would not be that of the file any more; dpkg makes one.
    (tree / "DEBIAN/md5sums").unlink(missing_ok=True)
    made = folder / f"{deb.stem}.changed.deb"
    build = ("dpkg-deb", "--root-owner-group", "--build", tree, made)
    subprocess.run(build, stdout=subprocess.DEVNULL, check=True)
    return made


def prepared(top: Path, mirror: Mirror) -> Prepared:
    """Build the packages, and an archive of them, in a directory."""
    (top / "packages").mkdir()
    changes = next(built_packages(top / "packages").glob("*.changes"))
    debs = sorted(changes.parent.glob("debian-cloud-config-*.deb"))
    archive = throwaway.archive(top, *debs)
    served = Served(top / "served")
    served.add("before", archive)
    (top / "changed").mkdir()
    archive.add(
        changed(next(deb for deb in debs if deb.name.startswith(f"debian-cloud-config-{CONFIG}_")), top / "changed")
    )
    served.add("after", archive)
    served.show("before")
    return Prepared(top, archive, served, mirror, caches_of(top))


def caches_of(top: Path) -> Caches:
    """The caches of a run in a directory."""
    return Caches(top / "caches")


def environment(top: Path) -> dict[str, str]:
    """What every command gets: no proxy, an apt that knows of none for the loopback, and trees in memory."""
    setting = top / "apt.conf"
    setting.write_text('Acquire::http::Proxy::127.0.0.1 "DIRECT";\n')
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and name != memory.NEVER
    }
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    return {
        **env,
        "PATH": path,
        "APT_CONFIG": str(setting),
        "XDG_CACHE_HOME": str(caches_of(top).home),
        "LC_ALL": "C.UTF-8",
    }
