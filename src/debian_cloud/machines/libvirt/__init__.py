# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts of the driver `libvirt`: its connection, its volumes, and what is kept of an instance."""
