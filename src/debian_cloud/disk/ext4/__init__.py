# SPDX-License-Identifier: GPL-3.0-or-later
"""ext4, as mke2fs(8) leaves it (Linux, Documentation/filesystems/ext4).

Checksums and counts are not looked at: what is in the files is told, and where.
Every block has one owner, which bounds all that is read by the size of the file
system.
"""
