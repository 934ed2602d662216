"""How fast the phone is simulated: our build of it, a bare C++ loop on the same Verilog, and a stock cocotb build."""
