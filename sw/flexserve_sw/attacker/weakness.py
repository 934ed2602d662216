"""The weaknesses that attacks look for, by their entries in the Common Weakness Enumeration."""

from __future__ import annotations

from enum import Enum

__all__ = ["Weakness"]


class Weakness(Enum):
    """A class of weakness; the value is its number and title in the enumeration."""

    OFF_BY_ONE = "CWE-193 Off-by-one Error"
    WRAPAROUND = "CWE-190 Integer Overflow or Wraparound"
    TIMING = "CWE-208 Observable Timing Discrepancy"
    OMITTED_EVIDENCE = "CWE-223 Omission of Security-relevant Information"
    RESIDUE = "CWE-226 Sensitive Information in Resource Not Removed Before Reuse"
    REPLAY = "CWE-294 Authentication Bypass by Capture-replay"
    CLEARTEXT = "CWE-311 Missing Encryption of Sensitive Data"
    AUTHENTICITY = "CWE-345 Insufficient Verification of Data Authenticity"
    STALE_CHECK = "CWE-367 Time-of-check Time-of-use Race Condition"
    HOARDING = "CWE-772 Missing Release of Resource after Effective Lifetime"
    AUTHORITY = "CWE-863 Incorrect Authorization"
    SHARED_RESOURCE = "CWE-1189 Improper Isolation of Shared Resources on System-on-a-Chip"
    GRANULARITY = "CWE-1220 Insufficient Granularity of Access Control"
    LOCK = "CWE-1231 Improper Prevention of Lock Bit Modification"
    OVERLAP = "CWE-1260 Improper Handling of Overlap Between Protected Memory Ranges"
    UPSET = "CWE-1261 Improper Handling of Single Event Upsets"
    REGISTERS = "CWE-1262 Improper Access Control for Register Interface"
    DESYNCHRONISED = "CWE-1264 Insecure De-Synchronization between Control and Data Channels"
    RESET = "CWE-1271 Uninitialized Value on Reset for Registers Holding Security Settings"
    RACE = "CWE-1298 Hardware Logic Contains Race Conditions"
    IDENTITY = "CWE-1302 Missing Source Identifier in Entity Transactions on a System-on-a-Chip"

    @property
    def number(self) -> str:
        """``CWE-`` and the number."""
        return self.value.partition(" ")[0]
