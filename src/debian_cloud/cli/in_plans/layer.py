# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep the tree of a stage in the cache as a layer, or make a tree of layers.

`keep CACHE TREE LAYER STAGE` keeps in CACHE, the directory of layers, what has changed
in TREE since the last layer. `take CACHE TREE FILE…` makes TREE of these files in CACHE,
each on top of the one before it. A build calls this as root of its namespace.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from debian_cloud.build import store
from debian_cloud.build.scripts import install
from debian_cloud.errors import Error

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    keep = actions.add_parser("keep", help="keep what has changed in TREE since the last layer")
    take = actions.add_parser("take", help="make TREE of layers, each on top of the one before it")
    for action in (keep, take):
        action.add_argument("cache", type=Path, metavar="CACHE", help="the directory of layers")
        action.add_argument("tree", type=Path, metavar="TREE", help="the root file system in the workspace")
    keep.add_argument("layer", metavar="LAYER", help="the id of the layer")
    keep.add_argument("stage", metavar="STAGE", help="the title of the step that made it")
    take.add_argument("files", nargs="+", metavar="FILE", help="name of a file in CACHE")


def main(args: argparse.Namespace) -> int:
    """Run the verb and return its exit status."""
    tree = args.tree.resolve()
    if args.action == "keep":
        reason = tree.parent / store.NOT_KEPT
        # Without the first, none of the others is kept.
        if (failed := store.keep(args.cache, tree, args.layer, args.stage)) and not reason.exists():
            reason.write_text(failed, "utf-8", "replace")
    else:
        tree.mkdir(exist_ok=True)
        try:
            install.check_attributes(tree)
        except ValueError as error:
            raise Error(str(error), "choose another place with --output") from None
        store.take(args.cache, tree, args.files)
    return 0
