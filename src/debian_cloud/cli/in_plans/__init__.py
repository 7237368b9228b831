# SPDX-License-Identifier: GPL-3.0-or-later
"""What a plan calls of `debian-cloud`, printed or carried out: one step a file, the directory is the registry."""
