"""Transaction-level machine: the phone in events, for quick runs of the very software that runs on the RTL."""

from .machine import FastMachine
from .memory import DramTiming, FlashTiming
from .session import simulate

__all__ = ["DramTiming", "FastMachine", "FlashTiming", "simulate"]
