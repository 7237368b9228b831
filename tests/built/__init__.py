# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of built images: read, booted, upgraded."""
