// State of the testbench around the SoC, shared by the main loop, the DPI functions and Python (through ctypes).
#pragma once

#include <cstdint>
#include <deque>

namespace phone {

constexpr unsigned kBeatBytes = 16;
constexpr unsigned kBurstPorts = 3;     // cpu_n, cpu_s, hostile
constexpr unsigned kRegisterPorts = 3;  // the same masters, AXI4-Lite
constexpr unsigned kOkay = 0, kSlverr = 2, kDecerr = 3;
constexpr unsigned kAborted = 4;  // not an AXI response: reset took the access away

// What Python pops after a wake. The layout is known to machine.py.
struct Completion {
    uint32_t token;
    uint32_t response;
    uint32_t data;
};

struct Clock {
    uint64_t cycle = 0;          // rising edges so far
    uint64_t alarm = ~0ULL;      // wake Python at this cycle
    uint32_t watched = 0;        // wake Python when one of these interrupt lines is high
    uint32_t interrupts = 0;     // levels after the last edge
    uint32_t reset_left = 0;     // cycles for which reset is still to be held
    uint32_t reset_token = 0;    // completed when it falls
    uint32_t active = 0;         // engines that have work: bursts in bits 2:0, registers in bits 5:3
    bool wake = false;           // there is something for Python
};

extern Clock clock;
extern std::deque<Completion> completions;

void complete(uint32_t token, uint32_t response, uint32_t data);

// A clock cycle is over, and interrupts are as they are now. Returns whether software has to be entered.
bool tick(uint32_t interrupts);

void reset_engines();
void reset_dram();
void reset_flash();

}  // namespace phone
