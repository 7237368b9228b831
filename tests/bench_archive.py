# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure a large archive's publication against reprepro and apt-ftparchive doing the same, alternately.

usage: tests/bench_archive.py [ROUNDS]

The archive has 10,000 image records, ten files per image, and 500 packages. Each
round adds an image and publishes. reprepro only exports and signs the packages;
apt-ftparchive reads the packages of the same tree without a cache, and writes
Packages and Release. Neither handles images, by-hash or snapshots.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "src")]

from bench.measure import Cost, measure  # noqa: E402 - the path is set above
from debian_cloud.image import index, inventory  # noqa: E402
from debian_cloud.image.id import ImageId  # noqa: E402
from debian_cloud.image.index import Attestation, ImageRecord  # noqa: E402
from debian_cloud.image.inventory import Entry  # noqa: E402

RECORDS, PACKAGES = 10_000, 500
CONFIGS = ("azure", "container", "ec2", "gce", "generic", "genericcloud", "nocloud", "openstack")
ATTESTATIONS = ("cdx.json", "intoto.json", "intoto.json.gpg", "spdx.json")


def record(number: int) -> ImageRecord:
    """One of many image records, whose hashes are its own, so that the text hardly compresses."""

    def of(what: str, algorithm: str = "sha256") -> str:
        return hashlib.new(algorithm, f"{number} {what}".encode()).hexdigest()

    day = date(2020, 1, 1) + timedelta(days=number // (2 * len(CONFIGS)))
    config, architecture = CONFIGS[number % len(CONFIGS)], ("amd64", "arm64")[number // len(CONFIGS) % 2]
    return ImageRecord(
        ImageId("trixie", config, architecture, f"{day:%Y%m%d}.0"),
        *("qcow2", "0.2.0~deb13u1", 260112384, 8 << 30),
        *(of("disk"), of("disk", "sha512")),
        buildinfo_sha256=of("buildinfo"),
        buildinfo_sha512=of("buildinfo", "sha512"),
        attestations=tuple(Attestation(suffix, 100000, of(suffix)) for suffix in ATTESTATIONS),
    )


def put(archive: Path, one: ImageRecord) -> None:
    """Write the files of an image; they are empty, because publishing reads none of them."""
    folder = archive / "public" / one.directory
    folder.mkdir(parents=True)
    for name in (*(f"{one.stem}.{s}" for s in ("qcow2", "buildinfo", *ATTESTATIONS)), *inventory.SUMS):
        (folder / name).touch()


def beside(one: ImageRecord) -> Iterator[Entry]:
    """The files of an image that its record does not list, with hashes of their own."""
    for name in (*(f"{one.stem}.{suffix}" for suffix in ("buildinfo", "changes", "image")), *inventory.SUMS):
        path = f"{one.directory}/{name}"
        yield Entry(path, hashlib.sha256(path.encode()).hexdigest(), 1000)


def fill(archive: Path) -> None:
    """Write image records, their empty files, and packages."""
    records = [record(number) for number in range(RECORDS)]
    for one in records:
        put(archive, one)
    (archive / "state/images/trixie").write_text(index.render(records))
    (archive / "state/files/trixie").write_text(inventory.render(entry for one in records for entry in beside(one)))
    debs = archive / "tmp/debs"
    for number in range(PACKAGES):
        root = debs / f"root{number}"
        (root / "DEBIAN").mkdir(parents=True)
        (root / "data").write_bytes(os.urandom(20_000))
        (root / "DEBIAN/control").write_text(
            f"Package: debian-cloud-config-x{number}\nSource: debian-cloud-config-x{number}\nVersion: 1\n"
            "Architecture: all\nMaintainer: x <x@example.org>\nSection: misc\nPriority: optional\nDescription: x\n"
        )
        command: list[str | Path] = [
            "dpkg-deb",
            "--root-owner-group",
            "-Znone",
            "--build",
            root,
            debs / f"{number}.deb",
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    include: list[str | Path] = [
        "reprepro",
        "--silent",
        "--basedir",
        archive,
        "--export=silent-never",
        "includedeb",
        "trixie",
    ]
    subprocess.run([*include, *debs.glob("*.deb")], check=True)
    shutil.rmtree(debs)


def main(rounds: int) -> None:
    """Print the rows."""
    with tempfile.TemporaryDirectory(prefix="dcb-") as name:
        top = Path(name)
        archive, alone = top / "a", top / "alone"
        subprocess.run(["debian-cloud-archive", "init", archive], check=True, stdout=subprocess.DEVNULL)
        (archive / "conf/closures").unlink()
        print(f"making {RECORDS} images and {PACKAGES} packages", file=sys.stderr, flush=True)
        fill(archive)
        subprocess.run(["debian-cloud-archive", "publish", archive], check=True, stdout=subprocess.DEVNULL)
        # The same packages and key, without the project's own indexes and records.
        (alone / "conf").mkdir(parents=True)
        distributions = (archive / "conf/distributions").read_text().split("\n\n")[0]
        kept = [line for line in distributions.splitlines() if not line.startswith(("Uploaders", "ByHandHooks", " "))]
        (alone / "conf/distributions").write_text("\n".join([*kept, "SignWith: yes", ""]))
        (alone / "conf/options").write_text(f"outdir {top}/public\ndbdir {alone}/db\ngnupghome {archive}/gnupg\n")
        shutil.copytree(archive / "state/db", alone / "db")
        ftp = 'apt-ftparchive packages "$1" >Packages && apt-ftparchive release . >Release'
        rows: dict[str, list[str | Path]] = {
            "publish after one more image": ["debian-cloud-archive", "publish", archive],
            "reprepro alone": ["reprepro", "--silent", "--basedir", alone, "export"],
            "apt-ftparchive": ["sh", "-c", ftp, "sh", archive / "public/pool"],
        }
        (top / "ftp").mkdir()
        costs: dict[str, list[Cost]] = {name: [] for name in rows}
        known = (archive / "state/images/trixie").read_text()
        files = [entry for number in range(RECORDS) for entry in beside(record(number))]
        for number in range(rounds):
            put(archive, record(RECORDS + number))
            known += "\n" + index.render([record(RECORDS + number)])
            (archive / "state/images/trixie").write_text(known)
            files += [*beside(record(RECORDS + number))]
            (archive / "state/files/trixie").write_text(inventory.render(files))
            for row, command in rows.items():
                costs[row].append(measure(command, top / "ftp"))
        print(f"{'row':<36}{'seconds':>9}{'MiB':>9}{'ratio':>7}")
        base = statistics.median(cost.seconds for cost in costs["reprepro alone"])
        for row, found in costs.items():
            seconds = statistics.median(cost.seconds for cost in found)
            mebibytes = statistics.median(cost.mebibytes for cost in found)
            print(f"{row:<36}{seconds:>9.1f}{mebibytes:>9.0f}{seconds / base:>7.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
