# SPDX-License-Identifier: GPL-3.0-or-later
"""List, verify or prune what builds keep in the user's cache (FILES).

Builds keep the indexes of archives, the packages that they fetched, each under its
SHA-256, and layers: the tree of an image after each stage of its installation, from
which the next build of the same packages continues. What was used least recently goes
when they are larger than their bounds.

list prints what is there: the archives whose indexes were read, the number of packages,
and each layer with the beginning of its id, the stage that made it, its size, and when
it was used last.

verify reads every package, layer and keyring, and names each that is not what its name
says, or that another user owns or can write to. It changes nothing. The exit status is
1 if there is any. A build that finds one does not use it.

prune removes those, what killed runs have left, and the least recently used packages
and layers until they take at most SIZE together; without --size, until each of them is
within its bound. With --all, all packages and layers go. If a build uses them, nothing
is removed, and the exit status is 1.

    debian-cloud cache list
    debian-cloud cache verify
    debian-cloud cache prune --size 2G
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Final

from debian_cloud.build import cached, store
from debian_cloud.errors import USAGE, Error
from debian_cloud.image import config
from debian_cloud.packages import cache
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    import argparse

_ACTIONS: Final = ("list", "verify", "prune")
_ID: Final = 12
"""Characters of a layer's id that are shown to people."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("action", choices=_ACTIONS, help="what to do")
    parser.add_argument("--json", action="store_true", help="with list: print JSON")
    parser.add_argument(
        "--size", default="", metavar="SIZE", help="with prune: what packages and layers may take together: 2G"
    )
    parser.add_argument("--all", action="store_true", help="with prune: remove all packages and layers")


def main(args: argparse.Namespace) -> int:
    """Run the verb and return its exit status."""
    for option, given, action in (
        ("--json", args.json, "list"),
        ("--size", args.size, "prune"),
        ("--all", args.all, "prune"),
    ):
        if given and args.action != action:
            raise Error(f"{option} is for {action}", f"omit it, or run debian-cloud cache {action} {option}", USAGE)
    if args.size and args.all:
        raise Error("--all leaves nothing, whatever the size is", "omit --size or --all", USAGE)
    if args.action == "list":
        found = cached.contents()
        print(_as_json(found) if args.json else _as_text(found))
        return 0
    if args.action == "verify":
        return _verify()
    print(_freed(cached.pruned(config.amount(args.size, "--size") if args.size else None, everything=args.all)))
    return 0


def _verify() -> int:
    count = 0
    for problem in cached.problems():
        count += 1
        print(f"{printable(str(problem.path))}: {problem.why}")
    if count:
        what = "1 thing in the cache is" if count == 1 else f"{count} things in the cache are"
        raise Error(f"{what} damaged or foreign", "remove what is: debian-cloud cache prune")
    print("all packages, layers and keyrings in the cache are as they were kept")
    return 0


def _as_text(found: cached.Contents) -> str:
    keyrings, packages = found.keyrings, found.packages
    lists = sum(archive.size for archive in found.archives) + keyrings[1]
    lines = [printable(str(found.place))]
    lines.append(f"indexes: {len(found.archives)}, {keyrings[0]} keyrings, {_of(lists, cache.BOUND)}")
    for archive in found.archives:
        name = printable(archive.path.name)
        lines.append(f"  {name:<28}  {_words(archive.size):>10}  {_day(archive.used)}")
        lines += [f"    {printable(source)}" for source in archive.sources]
    lines.append(f"packages: {packages[0]}, {_of(packages[1], cache.BOUND_OF_DEBS)}")
    lines.append(f"layers: {len(found.layers)}, {_of(found.bytes_of_layers, store.BOUND)}")
    for layer in found.layers:
        stage = printable(layer.stage)
        lines.append(f"  {layer.id[:_ID]}  {stage:<50}  {_words(layer.size):>10}  {_day(layer.used)}")
    lines.append(f"total: {_words(lists + packages[1] + found.bytes_of_layers)}")
    return "\n".join(lines)


def _as_json(found: cached.Contents) -> str:
    document = {
        "directory": str(found.place),
        "indexes": {
            "bytes": sum(archive.size for archive in found.archives),
            "bound": cache.BOUND,
            "archives": [
                {
                    "name": archive.path.name,
                    "sources": archive.sources,
                    "bytes": archive.size,
                    "used": int(archive.used),
                }
                for archive in found.archives
            ],
        },
        "keyrings": {"count": found.keyrings[0], "bytes": found.keyrings[1]},
        "packages": {"count": found.packages[0], "bytes": found.packages[1], "bound": cache.BOUND_OF_DEBS},
        "layers": {
            "bytes": found.bytes_of_layers,
            "bound": store.BOUND,
            "layers": [
                {"id": layer.id, "stage": layer.stage, "bytes": layer.size, "used": int(layer.used)}
                for layer in found.layers
            ],
        },
    }
    return json.dumps(document, indent=2)


def _freed(freed: cached.Freed) -> str:
    left = f"packages and layers take {_words(freed.left)}"
    if not freed.packages + freed.layers + freed.others:
        return f"nothing was to be removed; {left}"
    gone = (
        (freed.packages, "package", "packages"),
        (freed.layers, "layer", "layers"),
        (freed.others, "damaged or unfinished file", "damaged or unfinished files"),
    )
    what = [f"{number} {one if number == 1 else many}" for number, one, many in gone if number]
    return f"removed {', '.join(what)}: {_words(freed.size)} freed; {left}"


def _of(size: int, bound: int) -> str:
    return f"{_words(size)} of {_words(bound)}"


def _words(size: int) -> str:
    if size >= 2**30:
        return f"{size / 2**30:.1f} GiB"
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.0f} KiB"


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
