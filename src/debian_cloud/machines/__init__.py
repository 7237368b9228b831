# SPDX-License-Identifier: GPL-3.0-or-later
"""Instances of images: started from a signed record, and described by the provider that has them.

A target names a provider and its driver (`target`); the instance's state is the provider's alone, and nothing here
keeps a copy of it.
"""
