"""Drivers of register frames that have the same layout in both worlds."""
