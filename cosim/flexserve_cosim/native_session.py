"""A session on the compiled transaction-level machine: what its process runs, with the compiled package first on its
path. Orders and messages are those of :mod:`flexserve_cosim.messages`.
"""

from __future__ import annotations

from typing import Any

from flexserve_sw.fast import DramTiming, FlashTiming, simulate

from .messages import open_channel, read_order

__all__: list[str] = []


def main() -> None:
    """Run the job of this process as often as it is to be run."""
    order = read_order()
    cycle = 0
    with open_channel() as channel:

        def tell(message: dict[str, Any]) -> None:
            nonlocal cycle
            cycle = message["cycle"]
            channel.send("message", cycle, message)

        try:
            for _ in range(order["runs"]):
                result = simulate(
                    order["function"],
                    order["argument"],
                    on_message=tell,
                    dram=DramTiming(**order["dram"]),
                    flash=FlashTiming(**order["flash"]),
                    **order["machine"],
                )
        except Exception as error:
            channel.fail(cycle, error)
            return
        channel.send("result", cycle, result)


if __name__ == "__main__":
    main()
