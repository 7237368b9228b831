# SPDX-License-Identifier: GPL-3.0-or-later
"""Parsers and writers of text formats; they use no process, no file and no clock."""
