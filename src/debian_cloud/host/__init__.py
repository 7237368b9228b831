# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's processes, files, signatures and terminal: it knows nothing of images."""
