# SPDX-License-Identifier: GPL-3.0-or-later
"""What the source tree alone has: it makes debian/control and the manual pages, and is not shipped."""
