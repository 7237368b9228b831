# SPDX-License-Identifier: GPL-3.0-or-later
"""The tests: they mirror the packages of debian_cloud, and what is beside it."""
