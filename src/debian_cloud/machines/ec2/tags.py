# SPDX-License-Identifier: GPL-3.0-or-later
"""Tags by which this program's own things in an account are known; there is no other record of them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_PREFIX: Final = "debian-cloud:"

NAME: Final = f"{_PREFIX}name"
RUN: Final = f"{_PREFIX}run"
"""On each instance: the token of the call that started it."""
IMAGE: Final = f"{_PREFIX}image"
"""The stem of an image; on images, snapshots and instances."""
DISK: Final = f"{_PREFIX}disk"
"""The digest of an image's disk (`machines.ec2.blocks.identity`); on images and snapshots."""
FILE: Final = f"{_PREFIX}file"
"""The digest of the published file that the disk was in."""
OWNER: Final = f"{_PREFIX}owner"
USER: Final = f"{_PREFIX}user"
"""Whom to log in as."""
ARCHITECTURE: Final = f"{_PREFIX}architecture"
EXPIRES: Final = f"{_PREFIX}expires"
"""Seconds since 1970."""
THROW_AWAY: Final = f"{_PREFIX}throw-away"
HOST_KEY: Final = f"{_PREFIX}host-key"
"""The public host key, once the instance has written it to its console."""
VOLUME: Final = f"{_PREFIX}volume"
"""The name of a disk that outlives instances."""

SHOWN: Final = "Name"
"""What the provider's own tools show as the name."""

COPIED: Final = (SHOWN, IMAGE, FILE, DISK)
"""Tags of an image and its snapshot that their copies have, too."""


def members(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags as EC2 takes them."""
    return [{"Key": key, "Value": value} for key, value in tags.items() if value]


def of(described: Mapping[str, Any]) -> dict[str, str]:
    """The tags of something that EC2 describes."""
    return {str(tag.get("Key", "")): str(tag.get("Value", "")) for tag in described.get("Tags", ())}


def at_creation(kind: str, tags: Mapping[str, str]) -> dict[str, object]:
    """The parameter that gives what is made its tags, so that it is never without them."""
    return {"TagSpecifications": [{"ResourceType": kind, "Tags": members(tags)}]}


def where(tags: Mapping[str, str]) -> list[dict[str, object]]:
    """Filters for what has all these tags."""
    return [{"Name": f"tag:{name}", "Values": [value]} for name, value in tags.items()]
