# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of debian/: the packages as they are built."""
