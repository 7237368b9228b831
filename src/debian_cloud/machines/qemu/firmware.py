# SPDX-License-Identifier: GPL-3.0-or-later
"""UEFI firmware for a machine, found by the descriptors that its packages install.

They are as QEMU describes them in docs/interop/firmware.json.
"""

from __future__ import annotations

import fnmatch
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from debian_cloud.errors import USAGE, Error
from debian_cloud.host import files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from debian_cloud.machines.qemu.command import Board

_FOLDERS: Final = ("/etc/qemu/firmware", "/usr/share/qemu/firmware")
_LARGEST: Final = 2**16
"""Largest descriptor, in bytes; one has about a thousand."""
_KEYS: Final = "enrolled-keys"
"""Feature: keys are enrolled, so that Secure Boot verifies what it starts."""
_VERIFIES: Final = "secure-boot"
"""Feature: it can verify what it starts."""
_SMM: Final = "requires-smm"
"""Feature: it needs a machine with a protected mode, which not every acceleration has."""
_PACKAGES: Final = {"x86_64": "ovmf", "aarch64": "qemu-efi-aarch64"}


@dataclass(frozen=True, slots=True)
class Firmware:
    """Two files of one format: the code, and the variables of which each machine has a copy."""

    code: Path
    variables: Path
    format: str


def find(board: Board, *, secure: bool) -> Firmware:
    """The first firmware for a machine, with Secure Boot or without; Error names the package if there is none."""
    fitting = [found for one in _descriptors() if (found := _fitting(one, board, secure=secure))]
    # The plainest comes first: what could verify, but has no keys, verifies nothing.
    if fitting:
        return min(fitting, key=lambda one: one[0])[1]
    what = f"UEFI firmware{' with Secure Boot' if secure else ''} for {board.architecture}"
    raise Error(f"there is no {what}", f"run apt-get install {_PACKAGES.get(board.architecture, 'ovmf')}", USAGE)


def _fitting(descriptor: Mapping[str, Any], board: Board, *, secure: bool) -> tuple[int, Firmware] | None:
    """The firmware of a descriptor and how far it is from what is wanted, or None."""
    try:
        mapping, features = descriptor["mapping"], descriptor["features"]
        fits = any(
            target["architecture"] == board.architecture
            and any(fnmatch.fnmatchcase(board.versioned, pattern) for pattern in target["machines"])
            for target in descriptor["targets"]
        )
        if not fits or "uefi" not in descriptor["interface-types"]:
            return None
        if mapping["device"] != "flash" or mapping.get("mode", "split") != "split":
            return None
        verifies, keys = _VERIFIES in features, _KEYS in features
        if not (verifies and keys) if secure else keys or _SMM in features:
            return None
        code, variables = mapping["executable"], mapping["nvram-template"]
        found = Firmware(Path(code["filename"]), Path(variables["filename"]), code["format"])
        if found.format not in ("raw", "qcow2") or variables["format"] != found.format:
            return None
        there = found.code.is_file() and found.variables.is_file()
    except (KeyError, TypeError, AttributeError):
        return None
    return (int(verifies and not secure), found) if there else None


def _descriptors() -> Iterator[Mapping[str, Any]]:
    """The descriptors in order; one of a user or of the machine's operator hides the package's of the same name."""
    home = files.user_directory("XDG_CONFIG_HOME", ".config")
    found: dict[str, Path] = {}
    for folder in (*((home / "qemu" / "firmware",) if home else ()), *map(Path, _FOLDERS)):
        for path in sorted(folder.glob("*.json")):
            found.setdefault(path.name, path)
    for name in sorted(found):
        try:
            descriptor = json.loads(files.read(found[name], _LARGEST))
        except (ValueError, RecursionError, Error):
            # An empty file hides another one.
            continue
        if isinstance(descriptor, dict):
            yield descriptor
