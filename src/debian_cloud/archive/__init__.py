# SPDX-License-Identifier: GPL-3.0-or-later
"""What an archive reads and decides: its scripts lock, move, sign and call reprepro."""
