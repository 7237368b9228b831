# SPDX-License-Identifier: GPL-3.0-or-later
"""The tests mirror the packages of debian_cloud and the directories beside it."""
