# SPDX-License-Identifier: GPL-3.0-or-later
"""Resolve every configuration of a suite and an architecture against Debian's real indexes, building nothing.

usage: python3 -m tests.configs.matrix [SUITE ARCH [CONFIG…]]

Without arguments it resolves all of them and prints a table; with them it reads a
debian/control from standard input, and prints JSON. The configurations in
debian/control are put into an archive that has only indexes, signed by a key that
exists for one run, and read like any archive.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING, Final

from debian.deb822 import Deb822, PkgRelation

from debian_cloud import names
from debian_cloud.build import steps
from debian_cloud.errors import Error
from debian_cloud.image import config, sources
from debian_cloud.packages import origin
from debian_cloud.text import deb822
from tests.configs import official
from tools import render

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

ROOT: Final = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Resolved:
    """The result for one configuration; `explicit` packages are those that it and its layers name."""

    name: str
    explicit: int
    packages: int
    installed_size: int
    error: str


def binaries(control: str, architecture: str, version: str) -> Iterator[dict[str, str]]:
    """The configurations' stanzas in Packages that a build of `control` on an architecture would give."""
    _source, *stanzas = Deb822.iter_paragraphs(control.splitlines())
    for stanza in stanzas:
        here = {architecture, "all"}
        if not stanza["Package"].startswith(names.PACKAGE_PREFIX) or not here & {*stanza["Architecture"].split()}:
            continue
        fields = {
            "Package": stanza["Package"],
            "Version": version,
            "Architecture": "all" if stanza["Architecture"] == "all" else architecture,
            "Maintainer": "Nobody <nobody@localhost>",
            "Section": stanza["Section"],
            "Filename": f"pool/{stanza['Package']}.deb",
            # There is no .deb, because nothing is installed.
            "Size": "1",
            "SHA256": hashlib.sha256(stanza["Package"].encode()).hexdigest(),
            "Description": stanza["Description"].partition("\n")[0],
        }
        for field in ("Depends", "Recommends", "Conflicts", "Provides", "Replaces"):
            if field in stanza:
                fields[field] = _relations(stanza[field], architecture, version)
        facts = {field.removeprefix("XB-"): value for field, value in stanza.items() if field.startswith("XB-")}
        yield fields | config.of_architecture(facts, architecture)
    yield {
        "Package": "debian-cloud-archive-keyring", "Version": "1", "Architecture": "all", "Section": "misc",
        "Maintainer": "Nobody <nobody@localhost>", "Filename": "pool/keyring.deb", "Size": "1", "SHA256": "0" * 64,
        "Description": "stands for the one that each archive builds",
    }  # fmt: skip


def _relations(text: str, architecture: str, version: str) -> str:
    text = text.replace("${misc:Depends},", "").replace("${source:Version}", version).strip().rstrip(",")
    kept = []
    for alternatives in PkgRelation.parse_relations(text) if text else ():
        here = [one for one in alternatives if one["arch"] is None or (True, architecture) in one["arch"]]
        for one in here:
            one["arch"] = None
        if here:
            kept.append(here)
    return PkgRelation.str(kept)


def archive(folder: Path, suite: str, architecture: str, control: str, version: str) -> Path:
    """Write and sign an archive of indexes below `folder`, and return its keyring."""
    home = folder / "gnupg"
    home.mkdir(mode=0o700, parents=True)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--passphrase", ""]
    subprocess.run([*gpg, "--quick-generate-key", "Matrix <nobody@localhost>", "ed25519", "sign", "1d"], check=True)
    keyring = folder / "key.gpg"
    subprocess.run([*gpg, "--output", str(keyring), "--export"], check=True)
    dist = folder / "public" / "dists" / suite
    listed = ""
    stanzas = list(binaries(control, architecture, version))
    for component in sources.ARCHIVE_COMPONENTS:
        chosen = [s for s in stanzas if s["Section"].startswith("contrib/") == (component == "contrib")]
        index = dist / component / f"binary-{architecture}" / "Packages"
        index.parent.mkdir(parents=True)
        index.write_text("\n".join(deb822.render(s.items()) for s in chosen), "utf-8")
        digest = hashlib.sha256(index.read_bytes()).hexdigest()
        listed += f"\n {digest} {index.stat().st_size} {index.relative_to(dist)}"
    release = dist / "Release"
    release.write_text(
        deb822.render(
            (
                ("Origin", "matrix"),
                ("Suite", suite),
                ("Codename", suite),
                ("Date", formatdate(usegmt=True)),
                ("Valid-Until", formatdate(time.time() + 86400, usegmt=True)),
                ("Architectures", architecture),
                ("Components", " ".join(sources.ARCHIVE_COMPONENTS)),
                ("SHA256", listed),
            )
        ),
        "utf-8",
    )
    subprocess.run([*gpg, "--clearsign", "--output", str(dist / "InRelease"), str(release)], check=True)
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=True)
    return keyring


def resolve(suite: str, architecture: str, control: str, only: Collection[str] = ()) -> list[Resolved]:
    """Resolve every configuration of a suite and an architecture, or `only` those; once per process."""
    version = "0~matrix"
    explicit = named(control, architecture)
    found = []
    with tempfile.TemporaryDirectory(prefix="matrix.") as scratch:
        # It must be readable for apt's own user, too.
        Path(scratch).chmod(0o755)
        keyring = archive(Path(scratch), suite, architecture, control, version)
        places = origin.Places(expired=True, archive=f"file:{scratch}/public", keyring=keyring)
        with origin.of(places, suite, architecture) as read:
            for image in read.apt.configurations(suite):
                if only and names.config(image.name) not in only:
                    continue
                wanted = explicit[names.config(image.name)]
                try:
                    resolution = read.resolve(names.config(image.name), suite)
                    steps.check_size(resolution)
                    # Count the alternative that was chosen: for example chrony, if the cloud provides time by it.
                    wanted = wanted & {package.name for package in resolution.packages}
                    result = (len(resolution.packages), resolution.installed_size, "")
                except Error as error:
                    result = (0, 0, f"{error.message}\n{error.hint}")
                found.append(Resolved(names.config(image.name), len(wanted), *result))
    return found


def named(control: str, architecture: str) -> dict[str, set[str]]:
    """Configuration -> packages that it and its layers name or recommend; only the first alternatives."""
    stanzas = {stanza["Package"]: stanza for stanza in binaries(control, architecture, "0")}
    return {
        names.config(package): _closure(package, stanzas) | _first(stanza.get("Recommends", ""))
        for package, stanza in stanzas.items()
        if is_configuration(package)
    }


def _first(relations: str) -> set[str]:
    """The first package of each group of alternatives."""
    return {group[0]["name"] for group in PkgRelation.parse_relations(relations)} if relations else set()


def _closure(package: str, stanzas: dict[str, dict[str, str]]) -> set[str]:
    found = set[str]()
    for dependency in _first(stanzas[package].get("Depends", "")):
        found |= _closure(dependency, stanzas) if is_configuration(dependency) else {dependency}
    return found


def is_configuration(package: str) -> bool:
    """Whether a package is one of the configurations."""
    return package.startswith(names.PACKAGE_PREFIX)


def main() -> int:
    """Print one suite and architecture as JSON, or the whole table; return 1 if something cannot be installed."""
    if len(sys.argv) >= 3:
        suite, architecture, *only = sys.argv[1:]
        print(json.dumps([asdict(image) for image in resolve(suite, architecture, sys.stdin.read(), only)]))
        return 0
    begun = time.monotonic()
    failed = False
    print(f"{'':14}{'':10}{'':7}{'explicit':>9}{'official':>9}{'packages':>9}{'MiB':>7}")
    for suite in names.RELEASES:
        for architecture in names.ARCHITECTURES:
            for image in run(suite, architecture):
                known = image.name != "container"
                theirs = len(official.packages(image.name, suite, architecture)) if known else ""
                numbers = f"{image.explicit:9}{theirs:>9}{image.packages:9}{image.installed_size >> 20:7}"
                print(f"{image.name:14}{suite:10}{architecture:7}{numbers}")
                if image.error:
                    failed = True
                    print(f"    {image.error}")
    print(f"{time.monotonic() - begun:.0f} s")
    return 1 if failed else 0


def run(suite: str, architecture: str, *only: str, control: str = "") -> list[Resolved]:
    """Call `resolve` in a process of its own, because libapt's configuration is global."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.configs.matrix", suite, architecture, *only],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}/src:{ROOT}"},
        input=control or render.render(ROOT, suite),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [Resolved(**fields) for fields in json.loads(done.stdout)]


if __name__ == "__main__":
    sys.exit(main())
