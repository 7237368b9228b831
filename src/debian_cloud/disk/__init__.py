# SPDX-License-Identifier: GPL-3.0-or-later
"""Layout and reading of disks: nothing in an image is executed or mounted, and only `opened` reads files."""
