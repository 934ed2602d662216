"""Who a master is, as the fabric and the interconnect know it: hardware ties ports to worlds, software does not."""

from dataclasses import dataclass

from .axi4 import NSAID_WIDTH, Prot

__all__ = ["Identity"]


@dataclass(frozen=True, kw_only=True)
class Identity:
    """World and NSAID forced upon everything that a master port sends.

    ``may_be_secure``: AxPROT[1] passes as the master drives it; otherwise it is forced to 1, non-secure.
    ``nsaid`` replaces AxUSER; None lets AxUSER pass, for a port whose surroundings have done all this already.
    """

    nsaid: int | None
    may_be_secure: bool = False

    def __post_init__(self) -> None:
        if self.nsaid is not None and self.nsaid not in range(1 << NSAID_WIDTH):
            raise ValueError(f"NSAID must fit {NSAID_WIDTH} bits, not {self.nsaid!r}")

    def prot(self, asked):
        """Value of AxPROT that leaves the port, for the view ``asked`` of what entered it."""
        return asked if self.may_be_secure else Prot(asked.as_value() | 0b010)

    def user(self, asked):
        """Value of AxUSER that leaves the port."""
        return asked if self.nsaid is None else self.nsaid
