# SPDX-License-Identifier: GPL-3.0-or-later
"""Tools of the source tree, not shipped: they make debian/control and the manual pages."""
