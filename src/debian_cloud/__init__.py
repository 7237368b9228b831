# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian images as packages: configurations are packages, and images are built only from signed packages."""

VERSION = "0.2.0"
