# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure the start of an instance against the same by hand: qemu-img, and QEMU until it answers, alternately.

usage: tests/bench_machines.py [ROUNDS]

The disk has nothing on it, so that only the start is measured. Ours also makes the host key and the seed, and its
first row is a new process, which imports the program; an image that is not here yet would have to be fetched.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "src")]

from debian_cloud.machines.drivers.qemu import Local  # noqa: E402 - the path is set above
from debian_cloud.machines.qemu import acceleration  # noqa: E402
from debian_cloud.machines.spec import MachineSpec  # noqa: E402
from tests.machines import records  # noqa: E402

SPEC = MachineSpec("a", records.record(), memory=2**28, cpus=1)


def start(root: Path, base: str) -> None:
    """Start an instance, as `debian-cloud run` does when it has found its image."""
    records.local(root).run(SPEC, base, ("a",), 1)


def by_hand(folder: Path, base: Path, accelerator: str) -> None:
    """Make an overlay, start QEMU, and wait for the greeting of its protocol."""
    create = ("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, folder / "disk.qcow2")
    subprocess.run(create, check=True)
    place = folder / "qmp"
    process = subprocess.Popen(
        [
            *("qemu-system-x86_64", "-machine", "q35", "-accel", accelerator, "-m", "256", "-nodefaults"),
            *("-display", "none", "-serial", f"file:{folder / 'console'}"),
            *("-qmp", f"unix:{place},server=on,wait=off"),
            *("-drive", f"file={folder / 'disk.qcow2'},format=qcow2,if=virtio"),
            *("-nic", "user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:0-:22"),
        ]
    )
    try:
        while True:
            with socket.socket(socket.AF_UNIX) as connection:
                try:
                    connection.connect(str(place))
                except OSError:
                    time.sleep(0.005)
                    continue
                assert connection.recv(1000).startswith(b'{"QMP"')
                return
    finally:
        # Its end is not measured for either.
        STARTED.append(process)


STARTED: list[subprocess.Popen[bytes]] = []


def main(rounds: int) -> None:
    """Print the rows."""
    with tempfile.TemporaryDirectory(prefix="dcb-") as name:
        top = Path(name)
        here: Local = records.local(top)
        base = here.publish(records.empty(top, records.record()))
        accelerator = acceleration.found(here.root, "amd64")
        code = (
            f"from pathlib import Path; from tests import bench_machines as b; b.start(Path({str(top)!r}), {base!r})"
        )
        env = {**os.environ, "PYTHONPATH": f"{sys.path[0]}:{sys.path[1]}"}
        seconds: dict[str, list[float]] = {"a new process": [], "the function": [], "by hand": []}
        for number in range(rounds + 1):
            hand = top / f"hand{number}"
            hand.mkdir()
            works: dict[str, Callable[[], object]] = {
                "a new process": lambda: subprocess.run([sys.executable, "-c", code], env=env, check=True),
                "the function": lambda: start(top, base),
                "by hand": partial(by_hand, hand, here.root / "bases" / base, accelerator),
            }
            for row, work in works.items():
                begun = time.monotonic()
                work()
                if number:
                    seconds[row].append(time.monotonic() - begun)
                here.terminate(("a",))
                for process in STARTED:
                    process.kill()
                    process.wait()
                STARTED.clear()
        print(f"{'start of an instance (' + accelerator + ')':<36}{'seconds':>9}{'ratio':>7}")
        least = statistics.median(seconds["by hand"])
        for row, found in seconds.items():
            print(f"{row:<36}{statistics.median(found):>9.2f}{statistics.median(found) / least:>7.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
