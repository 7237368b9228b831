# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure the builder against the same work done by hand, alternately, in one run.

usage: tests/bench.py [ROUNDS]

Each row gives the median wall time and the largest process of both, and their
ratio. "By hand" is mmdebstrap with the exact packages that apt resolved, and
mke2fs -d of its tree: no configuration, no boot loader, no hashes.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "src")]

from debian_cloud.image import sources  # noqa: E402 - the path is set above
from debian_cloud.plan import NAMESPACE, NAMESPACE_USER  # noqa: E402
from tests import throwaway  # noqa: E402
from tests.command import SOURCE, STEP  # noqa: E402
from tests.packaging.build import built_packages  # noqa: E402

ROOTED = NAMESPACE if os.geteuid() == 0 else NAMESPACE_USER


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of wall time, and MiB of the largest process."""

    seconds: float
    mebibytes: float


def measure(commands: Sequence[Sequence[str | Path]], folder: Path) -> Cost:
    """The cost of commands run one after the other, under a new parent process that reports their memory."""
    begun = time.monotonic()
    largest = 0
    for command in commands:
        out = folder / "cost"
        timed = ["/usr/bin/time", "--format=%M", f"--output={out}", *command]
        subprocess.run(timed, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
        largest = max(largest, int(out.read_text().split()[-1]))
    return Cost(time.monotonic() - begun, largest / 1024)


def main(rounds: int) -> None:
    """Print the rows."""
    with throwaway.folder() as top:
        measured(top, rounds)


def measured(top: Path, rounds: int) -> None:
    (top / "packages").mkdir()
    changes = next(built_packages(top / "packages").glob("*.changes"))
    own = throwaway.archive(top, *sorted(changes.parent.glob("debian-cloud-config-*.deb")))
    where = own.sources
    shown = subprocess.run(["debian-cloud", "show", "ec2", "--json", *where], capture_output=True, check=True).stdout
    packages = [p["name"] for p in json.loads(shown)["packages"]]
    known = sources.targets(subprocess.run(sources.INDEXTARGETS, capture_output=True, text=True, check=True).stdout)
    ours = sources.Source(f"file:{own.public}", ("trixie",), str(own.keyring))
    both = (*sources.debian(known, "trixie"), ours)
    # Copied, not installed in place: the builder does the same.
    (top / "sources.list").write_text(sources.as_lines(source.copied for source in both))

    def cold(argument: str) -> Callable[[Path], Cost]:
        command = ["debian-cloud", "build", "ec2", "--quiet", "--format", argument, "--output", "out", *where]
        return lambda folder: measure([command], folder)

    def verified(*more: str | Path) -> Callable[[Path], Cost]:
        command: list[str | Path] = [
            "debian-cloud",
            "verify",
            "--quiet",
            image,
            "--closure",
            closure,
            "--keyring",
            own.keyring,
            "--unsigned",
            *more,
        ]
        return lambda folder: measure([command], folder)

    def by_hand(folder: Path) -> Cost:
        bootstrap = ["mmdebstrap", "--quiet", "--mode=root", "--format=directory", "--variant=minbase"]
        bootstrap += [f"--include={','.join(packages)}", "trixie", "tree", str(top / "sources.list")]
        mke2fs = ["mke2fs", "-q", "-t", "ext4", "-d", "tree", "root.img", "8G"]
        return measure([[*ROOTED, *bootstrap], [*ROOTED, *mke2fs]], folder)

    print("making the image that is verified", file=sys.stderr, flush=True)
    build: list[str | Path] = [
        "debian-cloud",
        "build",
        "ec2",
        "--quiet",
        "--format",
        "raw",
        "--output",
        top / "image",
        *where,
    ]
    subprocess.run(build, stdout=subprocess.DEVNULL, check=True)
    image, buildinfo, closure = *sorted((top / "image").iterdir(), reverse=True), top / "closure"
    keep: list[str | Path] = [
        *STEP,
        "closure",
        buildinfo,
        closure,
        "--pool",
        top / "pool",
        "--homedir",
        own.folder / "gnupg",
    ]
    subprocess.run(
        [*keep, *where], env={**os.environ, "PYTHONPATH": str(SOURCE)}, stdout=subprocess.DEVNULL, check=True
    )

    rows = {
        "cold build of ec2, raw": cold("raw"),
        "cold build of ec2, raw and qcow2": cold("raw,qcow2"),
        "verify ec2, made again before": verified("--rebuilt", image),
        "verify ec2, and make it again": verified(),
    }
    costs: dict[str, list[Cost]] = {name: [] for name in ("by hand", *rows)}
    for number in range(rounds):
        for name, run in {"by hand": by_hand, **rows}.items():
            folder = Path(tempfile.mkdtemp(dir=top))
            costs[name].append(run(folder))
            print(f"round {number + 1}: {name}: {costs[name][-1].seconds:.1f} s", file=sys.stderr, flush=True)
            subprocess.run([*ROOTED, "rm", "-rf", folder], check=True)

    def median(name: str) -> Cost:
        return Cost(
            statistics.median(c.seconds for c in costs[name]), statistics.median(c.mebibytes for c in costs[name])
        )

    base = median("by hand")
    print(f"{'row':<36}{'seconds':>9}{'by hand':>9}{'ratio':>7}{'MiB':>9}{'by hand':>9}{'ratio':>7}")
    for name in rows:
        cost = median(name)
        print(
            f"{name:<36}{cost.seconds:>9.1f}{base.seconds:>9.1f}{cost.seconds / base.seconds:>7.2f}"
            f"{cost.mebibytes:>9.0f}{base.mebibytes:>9.0f}{cost.mebibytes / base.mebibytes:>7.2f}"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
