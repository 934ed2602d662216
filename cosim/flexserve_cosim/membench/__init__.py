"""The memory bench: what the Flex-Mem filter costs, in cycles, measured on its RTL alone.

Masters, memory and the register port are C++ beside the Verilated filter; Python plays scenarios and computes figures.
"""
