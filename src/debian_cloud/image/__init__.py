# SPDX-License-Identifier: GPL-3.0-or-later
"""The data types of an image, from configuration to record; they use no process, no file and no clock."""
