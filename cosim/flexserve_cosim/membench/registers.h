// The software of the memory bench: a script of register accesses and waits, done one after the other.
#pragma once

#include <cstdint>
#include <vector>

namespace membench {

struct Step {
    // Accesses, d: non-secure. W write b to a; R read a; P read a until its bits b are c.
    // Waits. I interrupt a is high; E b pages have changed to state a; D masters are done; C a cycles; Z a scrub beats.
    // At once. B begin the traffic; X stop it; S snapshot; M count from here; H hold scrub answers back;
    // A read a (the queue of freed pages) every b cycles of a wait, 0: no longer.
    char kind;
    uint64_t a = 0, b = 0, c = 0, d = 0;
};

struct Outcome {
    uint64_t began = 0, doorbell = 0, ended = 0, value = 0, response = 0;
};

// AXI4-Lite master with one access at a time; write address and data go out together.
class RegisterPort {
  public:
    bool writing = false, address_valid = false, data_valid = false, reading = false, busy = false;
    uint32_t address = 0, data = 0;
    bool nonsecure = false;
    Outcome outcome;

    void write(uint64_t now, uint32_t to, uint32_t value, bool normal) {
        begin(now, to, normal);
        data = value;
        writing = address_valid = data_valid = true;
    }
    void read(uint64_t now, uint32_t from, bool normal) {
        begin(now, from, normal);
        reading = true;
    }
    // A cycle's handshakes; returns whether the access ended in it.
    bool clock(uint64_t now, bool awready, bool wready, bool bvalid, int bresp, bool arready, bool rvalid, int rresp,
               uint32_t rdata) {
        if (!busy) return false;
        if (address_valid && awready) address_valid = false;
        if (data_valid && wready) data_valid = false, outcome.doorbell = now;
        if (reading && arready) reading = false, outcome.doorbell = now;
        if (writing ? !bvalid : !rvalid) return false;
        outcome.ended = now;
        outcome.response = writing ? bresp : rresp;
        outcome.value = writing ? 0 : rdata;
        busy = writing = false;
        return true;
    }

  private:
    void begin(uint64_t now, uint32_t where, bool normal) {
        busy = true;
        address = where;
        nonsecure = normal;
        outcome = Outcome{now, now, now, 0, 0};
    }
};

}  // namespace membench
