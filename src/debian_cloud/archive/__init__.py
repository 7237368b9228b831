# SPDX-License-Identifier: GPL-3.0-or-later
"""The Python part of an archive: it reads and decides; the scripts lock, move, sign and call reprepro."""
