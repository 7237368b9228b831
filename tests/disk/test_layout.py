# SPDX-License-Identifier: GPL-3.0-or-later
"""The positions and names of a disk's partitions."""

from __future__ import annotations

import pytest

from debian_cloud.disk import layout as disk_layout
from debian_cloud.errors import Error


def test_partitions_are_where_official_images_have_them_and_do_not_overlap() -> None:
    layout = disk_layout.layout("stem", 3 * 2**30, "amd64", bios=True)
    assert [(p.number, p.start // disk_layout.MIB, p.size // disk_layout.MIB) for p in layout.partitions] == [
        (14, 1, 3),
        (15, 4, 124),
        (1, 128, 3 * 1024 - 129),
    ]
    for before, after in zip(layout.partitions, layout.partitions[1:], strict=False):
        assert before.start + before.size <= after.start
    # The backup table takes 33 sectors at the end (UEFI 2.10, 5.3.1).
    assert layout.root.start + layout.root.size <= layout.size - 33 * disk_layout.SECTOR


def test_the_same_name_gives_the_same_disk_and_another_name_another() -> None:
    first, again, other = (disk_layout.layout(stem, 2**30, "amd64", bios=True) for stem in ("a", "a", "b"))
    assert first == again
    identities = [part.uuid for part in (*first.partitions, *other.partitions)]
    identities += [first.uuid, first.root_uuid, first.hash_seed, other.uuid, other.root_uuid, other.hash_seed]
    assert len(set(identities)) == len(identities)


@pytest.mark.parametrize("size", [0, 128 * 2**20, 2**30 + 1])
def test_a_disk_that_cannot_be_is_refused(size: int) -> None:
    with pytest.raises(Error, match="too small, or not in MiB"):
        disk_layout.layout("stem", size, "amd64", bios=True)


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(Error, match="architecture vax"):
        disk_layout.layout("stem", 2**30, "vax", bios=True)
