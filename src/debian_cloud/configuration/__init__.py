# SPDX-License-Identifier: GPL-3.0-or-later
"""A configuration package, checked or newly written: it uses no process, no file and no clock."""
