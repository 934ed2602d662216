"""Secure monitor (EL3): boot configuration, world switches, and checks on whatever comes from the normal world."""

from .layout import Extent, Layout
from .monitor import Monitor, Refused
from .smc import Call, Request, Status

__all__ = ["Call", "Extent", "Layout", "Monitor", "Refused", "Request", "Status"]
