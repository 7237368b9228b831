# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk, laid out and read: nothing of an image is executed or mounted, and `opened` alone reads files."""
