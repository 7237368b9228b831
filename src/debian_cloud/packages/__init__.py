# SPDX-License-Identifier: GPL-3.0-or-later
"""What apt knows and fetches: nothing is used that no signature vouches for."""
