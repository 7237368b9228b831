# SPDX-License-Identifier: GPL-3.0-or-later
"""Check a configuration package, or write a new one, without any process, file or clock."""
