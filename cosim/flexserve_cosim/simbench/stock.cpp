// What simbench/stock.sv calls.

#include "Vtop__Dpi.h"
#include "phone.h"

svBit flex_tick(int interrupts) { return phone::tick(static_cast<uint32_t>(interrupts)); }
