// Descriptor queues of the burst and register engines. Python posts, the engines in RTL fetch and report.
//
// A posted access is cut into bursts of up to 256 beats that stay inside a page. All bursts of one access carry the
// same ID and so answer in order; different accesses take IDs in turn and may overtake each other.

#include <algorithm>
#include <array>
#include <cstring>
#include <unordered_map>

#include "Vtop__Dpi.h"
#include "phone.h"

namespace phone {

Clock clock;
std::deque<Completion> completions;

void complete(uint32_t token, uint32_t response, uint32_t data) {
    completions.push_back({token, response, data});
    clock.wake = true;
}

bool tick(uint32_t interrupts) {
    ++clock.cycle;
    clock.interrupts = interrupts;
    if (clock.reset_left && --clock.reset_left == 0) complete(clock.reset_token, kOkay, 0);
    if (!clock.wake && clock.cycle < clock.alarm && !(interrupts & clock.watched)) return false;
    clock.wake = false;
    clock.alarm = ~0ULL;
    clock.watched = 0;
    return true;
}

namespace {

constexpr unsigned kIds = 8;
constexpr unsigned kOutstanding = 8;  // bursts per port and direction: what a CPU cluster's port keeps in flight
constexpr uint32_t kPageBytes = 4096;

struct Access {
    uint32_t bursts_left;
    uint32_t response;
};

struct Burst {
    uint32_t token;
    uint32_t address;
    uint32_t beats;
    uint32_t id;
    uint32_t prot;
    uint8_t* data;
};

struct Direction {
    std::deque<Burst> waiting;                       // not yet on the address channel
    std::array<std::deque<Burst>, kIds> in_flight;   // per ID, oldest first
    unsigned outstanding = 0;

    void clear() { *this = Direction(); }
};

struct BurstPort {
    Direction reads, writes;
    std::deque<Burst> write_data;  // address sent, data not yet
    uint32_t beat = 0;             // of write_data.front()
    uint32_t next_id = 0;
    uint32_t accesses = 0;
};

struct RegisterAccess {
    uint32_t token, address, value, strobe, prot;
    bool write;
};

struct RegisterPort {
    std::deque<RegisterAccess> waiting;
    bool busy = false;
    uint32_t token = 0;
};

std::array<BurstPort, kBurstPorts> burst_ports;
std::array<RegisterPort, kRegisterPorts> register_ports;
std::unordered_map<uint32_t, Access> accesses;
uint32_t last_token = 0;

void set_active(unsigned bit, bool active) {
    clock.active = active ? clock.active | 1u << bit : clock.active & ~(1u << bit);
}

uint32_t new_token() {
    if (++last_token == 0) ++last_token;
    return last_token;
}

uint32_t post(unsigned port, bool write, uint32_t address, uint32_t bytes, uint32_t prot, uint8_t* data) {
    BurstPort& p = burst_ports.at(port);
    const uint32_t token = new_token();
    const uint32_t id = p.next_id++ % kIds;
    uint32_t bursts = 0;
    while (bytes) {
        const uint32_t chunk = std::min(bytes, kPageBytes - address % kPageBytes);
        (write ? p.writes : p.reads).waiting.push_back({token, address, chunk / kBeatBytes, id, prot, data});
        address += chunk;
        data += chunk;
        bytes -= chunk;
        ++bursts;
    }
    accesses[token] = {bursts, kOkay};
    ++p.accesses;
    set_active(port, true);
    return token;
}

bool next_address(Direction& d, int* id, int* address, int* beats, int* prot) {
    if (d.waiting.empty() || d.outstanding == kOutstanding) return false;
    const Burst& b = d.waiting.front();
    *id = static_cast<int>(b.id);
    *address = static_cast<int>(b.address);
    *beats = static_cast<int>(b.beats);
    *prot = static_cast<int>(b.prot);
    d.in_flight[b.id].push_back(b);
    d.waiting.pop_front();
    ++d.outstanding;
    return true;
}

void burst_ended(unsigned port, Direction& d, uint32_t id) {
    const uint32_t token = d.in_flight[id].front().token;
    d.in_flight[id].pop_front();
    --d.outstanding;
    Access& access = accesses.at(token);
    if (--access.bursts_left) return;
    complete(token, access.response, 0);
    accesses.erase(token);
    if (--burst_ports[port].accesses == 0) set_active(port, false);
}

void abort(const Direction& d) {
    for (const Burst& b : d.waiting) accesses.at(b.token).response = kAborted;
    for (const auto& queue : d.in_flight)
        for (const Burst& b : queue) accesses.at(b.token).response = kAborted;
}

}  // namespace

void reset_engines() {
    for (BurstPort& p : burst_ports) {
        abort(p.reads);
        abort(p.writes);
        p = BurstPort();
    }
    for (const auto& [token, access] : accesses) complete(token, kAborted, 0);
    accesses.clear();
    for (RegisterPort& p : register_ports) {
        if (p.busy) complete(p.token, kAborted, 0);
        for (const RegisterAccess& a : p.waiting) complete(a.token, kAborted, 0);
        p = RegisterPort();
    }
    clock.active = 0;
}

}  // namespace phone

using namespace phone;

// ---- called by bfm/burst_engine.sv

svBit flex_burst_ar(int port, int* id, int* address, int* beats, int* prot) {
    return next_address(burst_ports[port].reads, id, address, beats, prot);
}

svBit flex_burst_aw(int port, int* id, int* address, int* beats, int* prot) {
    BurstPort& p = burst_ports[port];
    if (!next_address(p.writes, id, address, beats, prot)) return 0;
    p.write_data.push_back(p.writes.in_flight[*id].back());
    return 1;
}

svBit flex_burst_w(int port, svBitVecVal* data, svBit* last) {
    BurstPort& p = burst_ports[port];
    if (p.write_data.empty()) return 0;
    const Burst& b = p.write_data.front();
    std::memcpy(data, b.data + p.beat * kBeatBytes, kBeatBytes);
    *last = ++p.beat == b.beats;
    if (*last) {
        p.write_data.pop_front();
        p.beat = 0;
    }
    return 1;
}

int flex_burst_r(int port, int id, const svBitVecVal* data, int response, svBit last) {
    Direction& d = burst_ports[port].reads;
    if (d.in_flight[id].empty()) return 1;
    Burst& b = d.in_flight[id].front();
    if (b.beats == 0 || (b.beats == 1) != static_cast<bool>(last)) return 2;
    std::memcpy(b.data, data, kBeatBytes);
    b.data += kBeatBytes;
    --b.beats;
    Access& access = accesses.at(b.token);
    access.response = std::max(access.response, static_cast<uint32_t>(response));
    if (last) burst_ended(port, d, id);
    return 0;
}

int flex_burst_b(int port, int id, int response) {
    Direction& d = burst_ports[port].writes;
    if (d.in_flight[id].empty()) return 1;
    Access& access = accesses.at(d.in_flight[id].front().token);
    access.response = std::max(access.response, static_cast<uint32_t>(response));
    burst_ended(port, d, id);
    return 0;
}

// ---- called by bfm/register_engine.sv

svBit flex_register_next(int port, svBit* write, int* address, int* value, int* strobe, int* prot) {
    RegisterPort& p = register_ports[port];
    if (p.busy || p.waiting.empty()) return 0;
    const RegisterAccess& a = p.waiting.front();
    *write = a.write;
    *address = static_cast<int>(a.address);
    *value = static_cast<int>(a.value);
    *strobe = static_cast<int>(a.strobe);
    *prot = static_cast<int>(a.prot);
    p.token = a.token;
    p.busy = true;
    p.waiting.pop_front();
    return 1;
}

int flex_register_done(int port, int response, int value) {
    RegisterPort& p = register_ports[port];
    if (!p.busy) return 1;
    complete(p.token, static_cast<uint32_t>(response), static_cast<uint32_t>(value));
    p.busy = false;
    if (p.waiting.empty()) set_active(kBurstPorts + port, false);
    return 0;
}

// ---- called by Python

extern "C" {

uint64_t phone_cycle() { return clock.cycle; }
uint32_t phone_active() { return clock.active; }
uint32_t phone_resetting() { return clock.reset_left != 0; }
uint32_t phone_interrupts() { return clock.interrupts; }
void phone_watch(uint32_t lines) { clock.watched = lines; }
void phone_alarm(uint64_t cycle) { clock.alarm = cycle; }

uint32_t phone_load(uint32_t port, uint32_t address, uint32_t bytes, uint32_t prot, uint8_t* data) {
    return post(port, false, address, bytes, prot, data);
}

uint32_t phone_store(uint32_t port, uint32_t address, uint32_t bytes, uint32_t prot, uint8_t* data) {
    return post(port, true, address, bytes, prot, data);
}

uint32_t phone_register(uint32_t port, uint32_t write, uint32_t address, uint32_t value, uint32_t strobe, uint32_t prot) {
    RegisterPort& p = register_ports.at(port);
    const uint32_t token = new_token();
    p.waiting.push_back({token, address, value, strobe, prot, write != 0});
    set_active(kBurstPorts + port, true);
    return token;
}

uint32_t phone_reset(uint32_t cycles) {
    reset_engines();
    reset_dram();
    reset_flash();
    clock.reset_left = cycles;
    clock.reset_token = new_token();
    return clock.reset_token;
}

uint32_t phone_completion(Completion* completion) {
    if (completions.empty()) return 0;
    *completion = completions.front();
    completions.pop_front();
    return 1;
}

}  // extern "C"
