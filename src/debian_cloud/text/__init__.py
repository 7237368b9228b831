# SPDX-License-Identifier: GPL-3.0-or-later
"""Text formats, parsed and written: it uses no process, no file and no clock."""
