# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that no index lists any more are removed when the signatures on the indexes that were shown have expired.

Until then, clients may have an older index. Links are removed at once. Indexes of suites that other runs mirror to
the same directory count; a suite whose directory was removed does not.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from debian_cloud.mirror import LocalError
from debian_cloud.mirror.tree import SHOWN
from debian_cloud.names import IMAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable

    from debian_cloud.mirror.releases import Release
    from debian_cloud.mirror.tree import Entries, Tree

_LEFT = "left"
_TERMS = "terms"
_DAY = 86400


def is_due(tree: Tree) -> bool:
    """Whether a file may be removed by now."""
    grace, now = _grace(_read(tree, _TERMS)), time.time()
    return any(now - since >= grace for since, _ in _read(tree, _LEFT))


def expire(
    tree: Tree,
    releases: Iterable[Release],
    there: Entries,
    listed_before: Container[str],
    most: int,
    say: Callable[[str], None],
) -> int:
    """Remove what was left for long enough, and note what is left now.

    If that is more than `most` files, none is removed, and their number is returned; it is 0 otherwise. Below a link
    of the operator only what was listed once is removed: `listed_before` are the paths that the last run has listed.
    """
    tree.forget()
    now = int(time.time())
    terms = _longest({*_read(tree, _TERMS), *((one.until - one.date, str(one.until)) for one in releases)}, now)
    grace = _grace(terms)
    named, links = tree.known()
    before = {path: since for since, path in _read(tree, _LEFT)}
    outside = tuple(f"{path}/" for path in there.outside)
    left = {
        path: before.get(path, now)
        for path in there.files
        if path not in named
        and (not outside or path in before or path in listed_before or not path.startswith(outside))
    }
    gone = [*(path for path in there.links if path.endswith("/current") and path not in links), *there.halves]
    old = [path for path, since in left.items() if now - since >= grace]
    kept = len(old) if 0 <= most < len(old) else 0
    staying = there.files.keys() - ({*old} if not kept else set())
    gone += (
        path
        for path, target in there.links.items()
        if path not in links and _is_alias(path, target) and f"{path.rpartition('/')[0]}/{target}" not in staying
    )
    removed = gone if kept else [*old, *gone]
    if removed:
        say(f"removing {len(removed)} old links, and files that no index has listed for {grace // _DAY} days")
    for path in removed:
        (tree.dest / path).unlink(missing_ok=True)
        left.pop(path, None)
    _remove_empty(tree, removed)
    _write(tree, _LEFT, ((since, path) for path, since in left.items()))
    _write(tree, _TERMS, terms)
    return kept


def _is_alias(path: str, target: str) -> bool:
    """Whether a link is an image's name without its serial, which goes when the file goes."""
    folder, _, name = path.rpartition("/")
    return (
        path.startswith(f"{IMAGES}/") and target.replace(f"-{folder.rpartition('/')[2]}.", ".", 1) == name != target
    )


def refuse(kept: int, most: int) -> None:
    """Raise Error if files were kept because there were more than `most`."""
    if kept:
        raise LocalError(
            f"{kept} files are old enough to be removed, but --max-delete is {most}",
            "none was removed, and the mirror shows the new state; allow more, if that is right",
        )


def _grace(terms: Iterable[tuple[int, str]]) -> int:
    now = time.time()
    return max((term for term, end in terms if end.isdecimal() and int(end) >= now), default=0)


def _longest(terms: set[tuple[int, str]], now: int) -> list[tuple[int, str]]:
    """The terms that are not over, without those of which another one is longer and ends later."""
    valid = sorted((term, int(end)) for term, end in terms if end.isdecimal() and int(end) >= now)
    return [
        (term, str(end))
        for term, end in valid
        if not any(other != (term, end) and other[0] >= term and other[1] >= end for other in valid)
    ]


def _remove_empty(tree: Tree, removed: Iterable[str]) -> None:
    for folder in sorted({path.rpartition("/")[0] for path in removed}, reverse=True):
        place = folder
        while place and place not in SHOWN:
            try:
                (tree.dest / place).rmdir()
            except FileNotFoundError:
                pass
            except OSError:
                break
            place = place.rpartition("/")[0]


def _read(tree: Tree, name: str) -> list[tuple[int, str]]:
    try:
        lines = (tree.state / name).read_text("utf-8", "surrogateescape").splitlines()
    except FileNotFoundError:
        return []
    pairs = (line.partition(" ") for line in lines)
    return [(int(number), rest) for number, _, rest in pairs if number.isdecimal() and rest]


def _write(tree: Tree, name: str, pairs: Iterable[tuple[int, str]]) -> None:
    with (tree.work / name).open("w", encoding="utf-8", errors="surrogateescape") as out:
        out.writelines(f"{number} {rest}\n" for number, rest in pairs)
    (tree.work / name).replace(tree.state / name)
