# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure a mirror of a large archive against `rsync -a` of the same tree, alternately, from one rsync daemon.

usage: tests/bench_mirror.py [ROUNDS [IMAGES]]

The archive has 10,000 images of 14 files each, and the indexes that list them; the disks are sparse. In each round
both make a first copy, then run again, and then follow after one more image. CPU is that of the client with its
children, not of the daemon; memory is that of the largest process.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Final

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "src")]

from bench.measure import Cost, measure  # noqa: E402 - the path is set above
from debian_cloud.image import index, inventory  # noqa: E402
from debian_cloud.image.id import ImageId  # noqa: E402
from debian_cloud.image.index import Attestation, ImageRecord  # noqa: E402
from debian_cloud.image.inventory import Entry  # noqa: E402
from tests.mirror.tree import Key, serve  # noqa: E402

CONFIGS: Final = ("azure", "container", "ec2", "gce", "generic", "genericcloud", "nocloud", "openstack")
SUFFIXES: Final = ("buildinfo", "changes", "image", "cdx.json", "intoto.json", "intoto.json.gpg", "spdx.json")
DISK: Final = 2**16
"""Bytes of a disk, all of them a hole."""
GOALS: Final = {"first copy": 1.3, "nothing changed": 1.0, "one more image": 1.2}


def image(number: int) -> ImageId:
    """One of many images: a serial a day for each of the configurations and two architectures."""
    day = date(2000, 1, 1) + timedelta(days=number // (2 * len(CONFIGS)))
    config, architecture = CONFIGS[number % len(CONFIGS)], ("amd64", "arm64")[number // len(CONFIGS) % 2]
    return ImageId("trixie", config, architecture, f"{day:%Y%m%d}.0")


def put(public: Path, one: ImageId) -> list[Entry]:
    """Write the files of an image, and return their lines of the index."""
    folder = public / one.path()
    folder.mkdir(parents=True)
    (folder / one.file("qcow2")).touch()
    os.truncate(folder / one.file("qcow2"), DISK)
    (folder / one.stable("qcow2")).symlink_to(one.file("qcow2"))
    (folder.parent / "current").unlink(missing_ok=True)
    (folder.parent / "current").symlink_to(one.serial)
    found = [
        Entry(f"{one.path()}/{one.file('qcow2')}", hashlib.sha256(bytes(DISK)).hexdigest(), DISK),
        Entry(f"{one.path()}/{one.stable('qcow2')}", target=one.file("qcow2")),
    ]
    for name in (*map(one.file, SUFFIXES), *inventory.SUMS):
        content = f"{one} {name}\n".encode() * 30
        (folder / name).write_bytes(content)
        found.append(Entry(f"{one.path()}/{name}", hashlib.sha256(content).hexdigest(), len(content)))
    return found


def records(entries: list[Entry]) -> Iterator[ImageRecord]:
    """The records of the images with these files."""
    sums = {entry.path: entry.sha256 for entry in entries}
    for entry in entries:
        if entry.size == DISK:
            one = ImageId.parse(entry.directory, "images")
            beside = (Attestation(suffix, 2000, sums[f"{one.path()}/{one.file(suffix)}"]) for suffix in SUFFIXES[3:])
            yield ImageRecord(
                one,
                *("qcow2", "1", DISK, DISK, entry.sha256, "0" * 128),
                buildinfo_sha256=sums[f"{one.path()}/{one.file('buildinfo')}"],
                attestations=tuple(beside),
            )


def publish(public: Path, key: Key, entries: list[Entry], when: datetime) -> None:
    """Sign the indexes."""
    current = {entry.directory.rpartition("/")[0]: entry.directory.rpartition("/")[2] for entry in entries}
    links = [Entry(f"{series}/current", target=serial) for series, serial in current.items()]
    folder = public / "dists/trixie/main/images"
    (folder / "by-hash/SHA256").mkdir(parents=True, exist_ok=True)
    lines = ""
    for name, text in (("Files", inventory.render([*entries, *links])), ("Images", index.render(records(entries)))):
        for file, content in ((name, text.encode()), (f"{name}.xz", lzma.compress(text.encode(), preset=1))):
            digest = hashlib.sha256(content).hexdigest()
            (folder / file).write_bytes(content)
            (folder / "by-hash/SHA256" / digest).write_bytes(content)
            lines += f" {digest} {len(content)} main/images/{file}\n"
    release = public / "dists/trixie/Release"
    release.write_text(
        f"Suite: trixie\nCodename: trixie\nDate: {format_datetime(when)}\n"
        f"Valid-Until: {format_datetime(when + timedelta(days=10))}\nAcquire-By-Hash: yes\nSHA256:\n{lines}"
    )
    key.gpg("--output", str(release.with_name("InRelease")), "--clearsign", str(release))
    key.gpg("--output", f"{release}.gpg", "--detach-sign", str(release))


def main(rounds: int, images: int) -> None:
    """Print the rows."""
    with tempfile.TemporaryDirectory(prefix="dcb-") as name:
        top = Path(name)
        public, when = top / "public", datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
        key = Key.make(top / "key")
        print(f"making {images} images", file=sys.stderr, flush=True)
        entries = [entry for number in range(images) for entry in put(public, image(number))]
        publish(public, key, entries, when)
        server = serve("rsync", public, top / "etc")
        costs: dict[str, dict[str, list[Cost]]] = {row: {"rsync": [], "mirror": []} for row in GOALS}
        try:
            for number in range(rounds):
                ours, theirs = top / f"ours{number}", top / f"theirs{number}"
                mirror = [sys.executable, "-m", "debian_cloud.mirror", "--quiet", "--keyring", str(key.keyring)]
                commands = {
                    "rsync": ["rsync", "-a", "--delete", f"{server.url}/", f"{theirs}/"],
                    "mirror": [*mirror, "--suite", "trixie", server.url, str(ours)],
                }
                env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1] / "src")}
                for row, found in costs.items():
                    if row == "one more image":
                        when += timedelta(hours=1)
                        entries += put(public, image(images + number))
                        publish(public, key, entries, when)
                    for who, command in commands.items():
                        found[who].append(measure(command, top, env))
                        # What one has written is not written to the disk in the other's time.
                        subprocess.run(["sync", "-f", top], check=True)
                subprocess.run(["rm", "-rf", ours, theirs], check=True)
        finally:
            server.kill()
            key.end()
        widths = (18, 9, 7, 10, 7, 6, 7, 6, 6)
        table: list[tuple[str, ...]] = [("row", "rsync s", "CPU", "mirror s", "CPU", "MiB", "ratio", "CPU", "goal")]
        for row, found in costs.items():
            (a, b), (c, d) = (
                (statistics.median(x.seconds for x in found[who]), statistics.median(x.cpu for x in found[who]))
                for who in ("rsync", "mirror")
            )
            most = max(cost.mebibytes for cost in found["mirror"])
            figures = (*(f"{value:.2f}" for value in (a, b, c, d)), f"{most:.0f}", f"{c / a:.2f}", f"{d / b:.2f}")
            table.append((row, *figures, f"{GOALS[row]:.1f}"))
        for line in table:
            print("".join(word.rjust(width) for word, width in zip(line, widths, strict=True)))


if __name__ == "__main__":
    main(*(int(word) for word in (*sys.argv[1:], *("3", "10000")[len(sys.argv) - 1 :])))
