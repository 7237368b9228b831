# SPDX-License-Identifier: GPL-3.0-or-later
"""What apt knows and fetches: only what a signature covers is used."""
