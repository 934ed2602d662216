"""What the subcommands of ``flexserve`` do; :mod:`flexserve_cosim.cli` only declares their options."""
