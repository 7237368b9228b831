# SPDX-License-Identifier: GPL-3.0-or-later
"""Why an image may be trusted: nothing in it is executed, and nothing that it says of itself is trusted."""
