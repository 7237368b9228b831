# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure the builder and its peers in turns, and write RESULTS.md and results.svg.

usage: python3 -m bench [--rounds N] [--peers LIST] [--output DIR]

A first round, which is not measured, fills the local mirror and looks at each disk and at the scratch space of cold
builds; who fails in it is named in the results with the error, and not tried again. LIST has names of bench/peers,
separated by commas; "" is none. What the peers need is installed by apt first.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from bench import chart, contents, machine, mirror, ours, peers, results, scratch  # noqa: E402 - the path is set above
from bench.caches import Caches  # noqa: E402
from bench.measure import CommandError, Cost, measure  # noqa: E402
from debian_cloud.image import sources  # noqa: E402
from debian_cloud.plan import NAMESPACE, NAMESPACE_USER  # noqa: E402
from tests import throwaway  # noqa: E402

SUITE: Final = "trixie"
_MOST: Final = 1800
"""Seconds after which a peer is taken to hang."""
ROOTED: Final = NAMESPACE if os.geteuid() == 0 else NAMESPACE_USER


@dataclass(slots=True)
class Bench:
    """One run of the bench: what is measured, and what was found so far."""

    top: Path
    mirror: mirror.Mirror
    env: dict[str, str]
    packages: tuple[str, ...]
    works: dict[str, ours.Work]
    caches: Caches
    costs: dict[str, list[Cost]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    found: dict[str, frozenset[str]] = field(default_factory=dict)
    spaces: dict[str, results.Scratch] = field(default_factory=dict)

    def round(self, names: Sequence[str], *, measured: bool) -> None:
        """Run each once that has not failed before, in a directory of its own."""
        for name in names:
            if name in self.failures:
                continue
            with self._folder() as folder:
                try:
                    cost = self._run(name, folder, watched=not measured)
                except (CommandError, LookupError) as failed:
                    self.failures[name] = str(failed)
                    say(f"{name}: failed\n{failed}")
                    continue
                say(f"{name}: {cost.seconds:.1f} s, {cost.cpu:.1f} CPU s{'' if measured else ', not measured'}")
                if measured:
                    self.costs.setdefault(name, []).append(cost)
                else:
                    self._look(name, folder)

    def _run(self, name: str, folder: Path, *, watched: bool) -> Cost:
        work = self.works.get(name)
        if work:
            with work.around(), self.caches.holding(work.cache):
                command, env = self.caches.command(work.argv), {**self.env, **work.env}
                if work.watched and watched:
                    return self._watched(name, folder, command, env)
                return _measured(command, folder, env)
        asked = {"packages": self.packages, "mirror": asdict(self.mirror)}
        (folder / "asked.json").write_text(json.dumps(asked))
        one: tuple[str | Path, ...] = (*ROOTED, "/usr/bin/python3", "-m", "bench.one", name, folder)
        # The settings of apt are for the machine's own: in a tree there is no such file.
        env = {key: value for key, value in self.env.items() if key != "APT_CONFIG"}
        return _measured(one, folder, {**env, "PYTHONPATH": str(ROOT)}, most=_MOST)

    def _watched(self, name: str, folder: Path, command: Sequence[str | Path], env: dict[str, str]) -> Cost:
        """Note the scratch space of a build; to look at it takes time, so its cost is not a measured one."""
        with scratch.watched(folder / "out", ROOTED) as space:
            cost = _measured(command, folder, env)
        root = max((contents.size(disk) for disk in folder.glob("out/*.raw")), default=0)
        self.spaces[name] = results.Scratch(space.disk, space.memory, root, self.caches.layers())
        return cost

    def _look(self, name: str, folder: Path) -> None:
        """Note which packages the disk has, if one was made."""
        disks = [Path((folder / "disk").read_text())] if name not in self.works else [*folder.glob("out/*.raw")]
        for disk in disks:
            self.found[name] = contents.packages(disk)

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        # Some tools take no path with a blank, or a long one.
        folder = Path(tempfile.mkdtemp(prefix="bench.", dir=self.top))
        folder.chmod(0o755)
        try:
            yield folder
        finally:
            detach(folder)
            subprocess.run([*ROOTED, "rm", "-rf", folder], check=True)


def _measured(argv: Sequence[str | Path], folder: Path, env: dict[str, str], most: float = 3600) -> Cost:
    # What was prepared, and what the one before has written, is not written at the cost of this one.
    os.sync()
    return measure(argv, folder, env, most=most)


def say(words: str) -> None:
    """Tell what goes on, on standard error."""
    print(words, file=sys.stderr, flush=True)


def detach(folder: Path) -> None:
    """Free the loop devices that a peer has left on a file of its directory."""
    listed = subprocess.run(["losetup", "--json", "--list"], capture_output=True, text=True, check=False).stdout
    for device in attached(listed, folder.name):
        subprocess.run(["losetup", "--detach", device], check=False)


def attached(listed: str, name: str) -> tuple[str, ...]:
    """The loop devices, of a list by losetup(8), on a file below a directory of this name.

    Of a file that was attached in another mount namespace, the path may begin at its file system's root.
    """
    devices = json.loads(listed)["loopdevices"] if listed else ()
    return tuple(device["name"] for device in devices if name in Path(device["back-file"] or "").parts)


def install(chosen: Sequence[str]) -> dict[str, str]:
    """Have apt install what the peers need; peer -> why it cannot be had."""
    failures = {}
    for name in chosen:
        command: tuple[str | Path, ...] = (ROOT / "tests/setup", "packages", *peers.find(name).PACKAGE.split())
        done = subprocess.run(command, stdout=sys.stderr, check=False)
        if done.returncode:
            failures[name] = f"its packages cannot be installed: apt-get install {peers.find(name).PACKAGE}"
    return failures


def main() -> None:
    """Read the words, measure, and write."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", default=",".join(peers.names()))
    parser.add_argument("--output", type=Path, default=ROOT / "bench")
    args = parser.parse_args()
    chosen = [name for name in args.peers.split(",") if name]
    if unknown := {*chosen} - {*peers.names()}:
        parser.error(f"no such peer: {', '.join(sorted(unknown))}; there are {', '.join(peers.names())}")
    if args.rounds < 1:
        parser.error("at least one round is measured")
    # Before anything of ours runs: what is found then is others' work.
    loads = [machine.load()]
    failures = install(chosen)
    with throwaway.folder() as top:
        found = measured(top, args.rounds, chosen, failures, loads)
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "RESULTS.md").write_text(results.render(found))
    (args.output / "results.svg").write_text(chart.render(results.bars(found)))
    say(f"{args.output}/RESULTS.md")


def measured(
    top: Path, rounds: int, chosen: Sequence[str], failures: dict[str, str], loads: list[float]
) -> results.Results:
    """Prepare, run all rounds, and return what was found; `loads` has that of the beginning."""
    known = sources.targets(subprocess.run(sources.INDEXTARGETS, capture_output=True, text=True, check=True).stdout)
    debian, security = (source.uri.rstrip("/") for source in sources.debian(known, SUITE))
    cache = mirror.Cache(ROOT / "build/bench/mirror", {mirror.MAIN: debian, mirror.SECURITY: security})
    here, server = mirror.serve(cache, SUITE)
    env = ours.environment(top)
    say("preparing: the packages, an archive of them, an image to verify, and caches")
    prepared = ours.prepared(top, here)
    packages, works = prepared.packages(env), prepared.works(env)
    bench = Bench(top, here, env, packages, works, prepared.caches, failures={**failures})
    names = (*bench.works, *chosen)
    bench.round(names, measured=False)
    cache.seal()
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        bench.round(names, measured=True)
        loads.append(machine.load())
    server.shutdown()
    if cache.missed:
        say(f"asked for in vain in the measured rounds: {', '.join(sorted(cache.missed))}")
    return results.Results(
        machine.described(top),
        rounds,
        tuple(loads),
        {name: peer_of(name) for name in chosen},
        frozenset(bench.packages),
        bench.costs,
        bench.failures,
        bench.found,
        bench.spaces,
    )


def peer_of(name: str) -> results.Described:
    """A peer in the words of the results; its version may be missing with its package."""
    peer = peers.find(name)
    try:
        version = peer.version()
    except LookupError:
        version = "not installed"
    return results.Described(peer.NAME, version, peer.NOTE)


if __name__ == "__main__":
    main()
