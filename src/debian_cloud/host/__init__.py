# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's processes, files, signatures and terminal; nothing here depends on images."""
