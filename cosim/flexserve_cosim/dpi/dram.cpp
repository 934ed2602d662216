// DRAM behind the filter: contents are a buffer that Python mapped, timing is latency, bandwidth and refresh.
//
// Reads and writes each move up to one beat per cycle and answer in the order of their addresses. Data of a read is
// looked up when its beat leaves, data of a write is visible from the cycle its beat arrived.

#include <algorithm>
#include <cstring>

#include "Vtop__Dpi.h"
#include "phone.h"

namespace phone {
namespace {

constexpr unsigned kQueue = 32;  // bursts accepted per direction
constexpr int kBurstFixed = 0, kBurstWrap = 2;
constexpr double kCreditLimit = 4.0 * kBeatBytes;

struct Contents {
    uint8_t* bytes = nullptr;
    uint64_t base = 0;
    uint64_t size = 0;

    uint8_t* at(uint64_t address) const {
        return address >= base && address - base + kBeatBytes <= size ? bytes + (address - base) : nullptr;
    }
};

struct Timing {
    uint64_t read_latency = 1, write_latency = 1;
    double bytes_per_cycle = kBeatBytes;
    uint64_t refresh_interval = 0, refresh_cycles = 0;
};

struct Burst {
    int id;
    uint64_t address;
    uint32_t beats, beat;
    int size, burst;
    uint64_t ready;  // cycle from which data (read) or response (write) may leave
    uint32_t response;

    uint64_t beat_address() const {
        const uint64_t bytes = 1ULL << size;
        if (burst == kBurstFixed) return address;
        if (burst != kBurstWrap) return beat == 0 ? address : (address & ~(bytes - 1)) + beat * bytes;
        const uint64_t span = bytes * beats;
        return (address & ~(span - 1)) + ((address + beat * bytes) & (span - 1));
    }
};

// Bytes that may be moved now. Going below zero is allowed and paid back, so that the mean rate holds.
struct Credit {
    double bytes = 0;
    uint64_t cycle = 0;

    bool available(const Timing& t) {
        bytes = std::min(kCreditLimit, bytes + t.bytes_per_cycle * static_cast<double>(clock.cycle - cycle));
        cycle = clock.cycle;
        return bytes > 0;
    }
};

Contents contents;
Timing timing;
std::deque<Burst> reads, writes, responses;
Credit read_credit, write_credit;

bool refreshing() { return timing.refresh_interval && clock.cycle % timing.refresh_interval < timing.refresh_cycles; }

Burst make(int id, int address, int length, int size, int burst) {
    return {id, static_cast<uint32_t>(address), static_cast<uint32_t>(length) + 1, 0, size, burst, 0, kOkay};
}

}  // namespace

void reset_dram() {
    reads.clear();
    writes.clear();
    responses.clear();
    read_credit = write_credit = {0, clock.cycle};
}

}  // namespace phone

using namespace phone;

// ---- called by bfm/dram.sv

void flex_dram_ar(int id, int address, int length, int size, int burst) {
    Burst b = make(id, address, length, size, burst);
    b.ready = clock.cycle + timing.read_latency - 1;
    reads.push_back(b);
}

void flex_dram_aw(int id, int address, int length, int size, int burst) {
    writes.push_back(make(id, address, length, size, burst));
}

int flex_dram_w(const svBitVecVal* data, int strobe, svBit last) {
    if (writes.empty()) return 1;
    Burst& b = writes.front();
    if (last != (b.beat + 1 == b.beats)) return 2;
    if (uint8_t* target = contents.at(b.beat_address() & ~uint64_t{kBeatBytes - 1})) {
        const auto* source = reinterpret_cast<const uint8_t*>(data);
        if (strobe == 0xFFFF) {
            std::memcpy(target, source, kBeatBytes);
        } else {
            for (unsigned i = 0; i < kBeatBytes; ++i)
                if (strobe >> i & 1) target[i] = source[i];
        }
    } else {
        b.response = kDecerr;
    }
    write_credit.bytes -= kBeatBytes;
    ++b.beat;
    if (last) {
        b.ready = clock.cycle + timing.write_latency - 1;
        responses.push_back(b);
        writes.pop_front();
    }
    return 0;
}

svBit flex_dram_r(int* id, svBitVecVal* data, int* response, svBit* last) {
    if (reads.empty() || reads.front().ready > clock.cycle) return 0;
    if (refreshing() || !read_credit.available(timing)) return 0;
    Burst& b = reads.front();
    *id = b.id;
    if (const uint8_t* source = contents.at(b.beat_address() & ~uint64_t{kBeatBytes - 1})) {
        std::memcpy(data, source, kBeatBytes);
        *response = kOkay;
    } else {
        std::memset(data, 0, kBeatBytes);
        *response = kDecerr;
    }
    read_credit.bytes -= kBeatBytes;
    *last = ++b.beat == b.beats;
    if (*last) reads.pop_front();
    return 1;
}

svBit flex_dram_b(int* id, int* response) {
    if (responses.empty() || responses.front().ready > clock.cycle) return 0;
    *id = responses.front().id;
    *response = static_cast<int>(responses.front().response);
    responses.pop_front();
    return 1;
}

// Bits: 0 AR, 1 AW, 2 W can be accepted in the coming cycle, 3 there is work.
int flex_dram_status() {
    const bool open = !writes.empty() && !refreshing() && write_credit.available(timing);
    const bool busy = !reads.empty() || !writes.empty() || !responses.empty();
    return (reads.size() < kQueue) | (writes.size() < kQueue) << 1 | open << 2 | busy << 3;
}

// ---- called by Python

extern "C" {

void phone_dram(uint8_t* bytes, uint64_t base, uint64_t size) { contents = {bytes, base, size}; }

void phone_dram_timing(uint64_t read_latency, uint64_t write_latency, double bytes_per_cycle, uint64_t refresh_interval,
                       uint64_t refresh_cycles) {
    timing = {read_latency, write_latency, bytes_per_cycle, refresh_interval, refresh_cycles};
}

}  // extern "C"
