// Flash behind the storage DMA device: requests are served one after the other, each with latency and bandwidth.

#include <cstring>

#include "Vtop__Dpi.h"
#include "phone.h"

namespace phone {
namespace {

constexpr unsigned kQueue = 4;  // requests accepted

struct Request {
    uint64_t offset, length;
    bool to_flash;
};

uint8_t* bytes = nullptr;
uint64_t size = 0;
uint64_t latency = 1;
double bytes_per_cycle = kBeatBytes;

std::deque<Request> requests;
uint64_t start = 0;    // cycle from which the head request's data moves
uint64_t moved = 0;    // bytes of it
uint64_t written = 0;  // cycle at which the write in progress has reached the cells; 0 while data is missing

// Reading waits for the cells before the first byte, writing after the last.
void begin() {
    start = clock.cycle + (!requests.empty() && requests.front().to_flash ? 0 : latency);
    moved = 0;
    written = 0;
}

void finish() {
    requests.pop_front();
    begin();
}

bool beat_due() {
    const double elapsed = static_cast<double>(clock.cycle) - static_cast<double>(start);
    return elapsed * bytes_per_cycle >= static_cast<double>(moved);
}

uint8_t* at(uint64_t offset) { return offset + kBeatBytes <= size ? bytes + offset : nullptr; }

}  // namespace

void reset_flash() {
    requests.clear();
    begin();
}

}  // namespace phone

using namespace phone;

// ---- called by bfm/flash.sv

void flex_flash_request(int offset, int length, svBit to_flash) {
    requests.push_back({static_cast<uint32_t>(offset), static_cast<uint32_t>(length), static_cast<bool>(to_flash)});
    if (requests.size() == 1) begin();
}

svBit flex_flash_read(svBitVecVal* data) {
    if (requests.empty() || requests.front().to_flash || clock.cycle < start || !beat_due()) return 0;
    const Request& r = requests.front();
    if (const uint8_t* source = at(r.offset + moved)) {
        std::memcpy(data, source, kBeatBytes);
    } else {
        std::memset(data, 0, kBeatBytes);  // beyond the device there is nothing
    }
    moved += kBeatBytes;
    if (moved >= r.length) finish();
    return 1;
}

void flex_flash_write(const svBitVecVal* data) {
    if (requests.empty() || !requests.front().to_flash) return;
    const Request& r = requests.front();
    if (uint8_t* target = at(r.offset + moved)) std::memcpy(target, data, kBeatBytes);
    moved += kBeatBytes;
    if (moved >= r.length) written = clock.cycle + latency;
}

// Bits: 0 a request, 1 a write beat can be accepted in the coming cycle, 2 the write has reached flash, 3 there is work.
int flex_flash_status() {
    const bool done = written && clock.cycle >= written;
    if (done) finish();
    const bool open = !requests.empty() && requests.front().to_flash && !written && clock.cycle >= start && beat_due();
    return (requests.size() < kQueue) | open << 1 | done << 2 | !requests.empty() << 3;
}

// ---- called by Python

extern "C" {

void phone_flash(uint8_t* contents, uint64_t length) {
    bytes = contents;
    size = length;
}

void phone_flash_timing(uint64_t cycles, double rate) {
    latency = cycles;
    bytes_per_cycle = rate;
}

}  // extern "C"
