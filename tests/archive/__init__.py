# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of archive/, in Python and in sh."""
