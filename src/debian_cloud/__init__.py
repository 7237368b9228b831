# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian images as packages: configurations are packages, images are built of signed packages alone."""

VERSION = "0.2.0"
