# SPDX-License-Identifier: GPL-3.0-or-later
"""A package that is installed. Each step of an archive needs it, and nothing else of a resolution. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Installed:
    """One installed binary package, as dpkg lists it."""

    name: str
    version: str
    architecture: str
