# SPDX-License-Identifier: GPL-3.0-or-later
"""What the driver `qemu` consists of: its directory, QEMU's command line and protocol, firmware, acceleration."""
