# SPDX-License-Identifier: GPL-3.0-or-later
"""EC2, and what speaks its language: images, snapshots and instances of one account."""
