# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure the upload of a disk to EC2, and the list of instances there, against the cloud of tests/machines/cloud.py.

usage: tests/bench_ec2.py [ROUNDS]

The disk is as large as that of the image ec2, and has as much data: 1195 blocks of 16384. A new process uploads it,
so its processor time and memory are those of the command; the cloud is in this process.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "src")]

from debian_cloud.machines import drivers  # noqa: E402 - the path is set above
from debian_cloud.machines.target import Target  # noqa: E402
from tests.machines.cloud import BLOCK, Cloud, served  # noqa: E402

BLOCKS, OF = 1195, 16384

UPLOAD = """
import os, sys
from dataclasses import replace
from pathlib import Path
from debian_cloud.machines import drivers
from debian_cloud.machines.source import Source
from debian_cloud.machines.target import Target
from tests.machines.records import OF_EC2, record
address, file = sys.argv[1], Path(sys.argv[2])
of = replace(record("ec2", machine=OF_EC2), virtual_size=file.stat().st_size)
services = dict.fromkeys(("Endpoint", "Ebs-Endpoint", "Sts-Endpoint"), address)
found = drivers.provider(Target("there", "ec2", {"Region": "eu-one-1", **services}))
from debian_cloud.machines.qemu import bases
bases.of = lambda root, source: source.file
found.publish(Source(of, "sha256-0", file=file))
# Not ru_maxrss, which has that of the process that began this one.
(most,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
Path(sys.argv[3]).write_text(most.split()[1])
"""


def upload(address: str, file: Path, top: Path) -> tuple[float, float, float]:
    """Seconds, seconds of the processor, and MiB of memory of one upload."""
    begun = time.monotonic()
    environment = {
        **os.environ,
        "PYTHONPATH": f"{sys.path[0]}:{sys.path[1]}",
        "XDG_STATE_HOME": str(top),
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "y",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    argv = [sys.executable, "-c", UPLOAD, address, str(file), str(top / "most")]
    process = os.posix_spawn(sys.executable, argv, environment)
    _, status, used = os.wait4(process, 0)
    assert status == 0
    return time.monotonic() - begun, used.ru_utime + used.ru_stime, int((top / "most").read_text()) / 1024


def disk(file: Path) -> None:
    """Write a disk with holes."""
    with file.open("wb") as out:
        out.truncate(OF * BLOCK)
        for number in range(BLOCKS):
            out.seek(number * (OF // BLOCKS) * BLOCK)
            out.write(os.urandom(BLOCK) if number else (bytes(512) + b"EFI PART").ljust(BLOCK, b"x"))


def main(rounds: int) -> None:
    """Print the rows."""
    with tempfile.TemporaryDirectory(prefix="dcb-", dir="/var/tmp") as name:
        top = Path(name)
        disk(top / "disk.raw")
        rows = []
        for number in range(rounds + 1):
            cloud = Cloud(late=0)
            server = served(cloud)
            rows += [upload(f"http://127.0.0.1:{server.server_address[1]}", top / "disk.raw", top)][: bool(number)]
            server.shutdown()
            server.server_close()
            (snapshot,) = cloud.snapshots.values()
            assert len(snapshot.blocks) == cloud.count("PutSnapshotBlock") == BLOCKS
    print(f"{'upload of a disk to EC2':<36}{'seconds':>9}{'CPU s':>7}{'MiB':>6}{'blocks':>8}{'with data':>10}")
    seconds, cpu, memory = (statistics.median(row[column] for row in rows) for column in range(3))
    print(f"{'':<36}{seconds:>9.1f}{cpu:>7.1f}{memory:>6.0f}{BLOCKS:>8}{BLOCKS:>10}")
    instances()


def instances() -> None:
    """Print how many requests a list of 200 instances takes."""
    os.environ |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_EC2_METADATA_DISABLED": "true"}
    cloud = Cloud()
    tags = {"debian-cloud:run": "x", "debian-cloud:name": "a"}
    for number in range(200):
        cloud.instances[f"i-{number:017x}"] = {
            "state": "running",
            "left": 0,
            "tags": {**tags, "debian-cloud:name": f"a-{number}"},
            "asked": {},
            "reason": "",
            "region": "eu-one-1",
            "token": "",
            "number": number,
        }
    server = served(cloud)
    with tempfile.TemporaryDirectory(prefix="dcb-") as name:
        os.environ["XDG_STATE_HOME"] = name
        address = f"http://127.0.0.1:{server.server_address[1]}"
        found = drivers.provider(Target("there", "ec2", {"Region": "eu-one-1", "Endpoint": address}))
        begun = time.monotonic()
        assert len(found.describe()) == len(cloud.instances)
    took = time.monotonic() - begun
    print(f"{'list of 200 instances in EC2':<36}{took:>9.1f} s, {cloud.count('DescribeInstances')} requests")
    server.shutdown()
    server.server_close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
