# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of images as they were built: looked into, booted, upgraded."""
