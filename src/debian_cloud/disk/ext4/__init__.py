# SPDX-License-Identifier: GPL-3.0-or-later
"""ext4, as mke2fs(8) writes it (Linux, Documentation/filesystems/ext4).

Checksums and counts are not checked: the reader reports what is in the files, and where. Every block has one owner,
so that the size of the file system bounds all that is read.
"""
