# SPDX-License-Identifier: GPL-3.0-or-later
"""What of ours is measured, and apt-cache beside it: commands with the archive and the image that they need."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.mirror import Mirror
from tests import throwaway
from tests.command import SOURCE, STEP
from tests.packaging.build import built_packages

CONFIG: Final = "ec2"

COLD: Final = "cold build, raw"
COLD_QCOW2: Final = "cold build, raw and qcow2"
VERIFY: Final = "verify, and make it again"
VERIFY_MADE: Final = "verify, made again before"
LIST: Final = "list"
SHOW: Final = "show"
PLAN: Final = "plan, second time"
APT_CACHE: Final = "apt-cache show"


@dataclass(frozen=True, slots=True)
class Work:
    """One command; with `kept`, the cache of indexes is there from the time before."""

    argv: Sequence[str | Path]
    kept: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """An archive of the configurations, and what is built from: arguments of all verbs."""

    top: Path
    archive: throwaway.Archive
    mirror: Mirror

    @property
    def sources(self) -> tuple[str, ...]:
        """Where Debian and the configurations come from."""
        return ("--mirror", self.mirror.main, "--security-mirror", self.mirror.security, *self.archive.sources)

    def packages(self, env: Mapping[str, str]) -> tuple[str, ...]:
        """The packages of Debian in the image; ours, which configure it, are left out."""
        shown = self._output(("debian-cloud", "show", CONFIG, "--json", *self.sources), env)
        names = (str(package["name"]) for package in json.loads(shown)["packages"])
        return tuple(sorted(name for name in names if not name.startswith("debian-cloud")))

    def works(self, env: Mapping[str, str]) -> dict[str, Work]:
        """Name -> command. An image is built first, for those that verify it."""
        build = ("debian-cloud", "build", CONFIG, "--quiet")
        self._output((*build, "--format", "raw", "--output", str(self.top / "image"), *self.sources), env)
        image, buildinfo = (next((self.top / "image").glob(f"*.{suffix}")) for suffix in ("raw", "buildinfo"))
        closure = self._closure(buildinfo, env)
        verify: tuple[str | Path, ...] = ("debian-cloud", "verify", "--quiet", image, "--closure", closure)
        # The loopback is not a mirror of Debian's that a machine knows.
        verify += ("--keyring", self.archive.keyring, "--unsigned", *self.sources[:4])
        return {
            COLD: Work((*build, "--format", "raw", "--output", "out", *self.sources)),
            COLD_QCOW2: Work((*build, "--format", "raw,qcow2", "--output", "out", *self.sources)),
            VERIFY: Work(verify),
            VERIFY_MADE: Work((*verify, "--rebuilt", image)),
            LIST: Work(("debian-cloud", "list", *self.sources), kept=True),
            SHOW: Work(("debian-cloud", "show", CONFIG, *self.sources), kept=True),
            PLAN: Work(("debian-cloud", "plan", CONFIG, *self.sources), kept=True),
            APT_CACHE: Work(("apt-cache", "show", "bash")),
        }

    def _closure(self, buildinfo: Path, env: Mapping[str, str]) -> Path:
        closure = self.top / "closure"
        step = (*STEP, "closure", str(buildinfo), str(closure), "--pool", str(self.top / "pool"))
        home = ("--homedir", str(self.archive.folder / "gnupg"))
        self._output((*step, *home, *self.sources), {**env, "PYTHONPATH": str(SOURCE)})
        return closure

    def _output(self, argv: Sequence[str], env: Mapping[str, str]) -> str:
        return subprocess.run(argv, env=dict(env), stdout=subprocess.PIPE, text=True, check=True).stdout


def prepared(top: Path, mirror: Mirror) -> Prepared:
    """Build the packages, and an archive of them, in a directory."""
    (top / "packages").mkdir()
    changes = next(built_packages(top / "packages").glob("*.changes"))
    archive = throwaway.archive(top, *sorted(changes.parent.glob("debian-cloud-config-*.deb")))
    return Prepared(top, archive, mirror)


def environment(top: Path) -> dict[str, str]:
    """What every command gets: no proxy, and an apt that knows of none for the loopback."""
    setting = top / "apt.conf"
    setting.write_text('Acquire::http::Proxy::127.0.0.1 "DIRECT";\n')
    env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    return {
        **env,
        "PATH": path,
        "APT_CONFIG": str(setting),
        "XDG_CACHE_HOME": str(top / "cache"),
        "LC_ALL": "C.UTF-8",
    }
