// Memory behind the NPU's port, as unkind as AXI4 allows: random latency and pauses, and reads of different IDs that
// overtake each other beat by beat.
#pragma once

#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <random>
#include <stdexcept>
#include <string>

namespace npubench {

constexpr uint64_t kBeatBytes = 16, kPageBytes = 4096;

struct Address {
    uint32_t id = 0;
    uint64_t addr = 0;
    uint32_t beats = 0;
};

struct Denial {
    unsigned response = 0;
    uint64_t from = 0;  // cycle of the address from which on it holds
};

class Memory {
  public:
    Memory(uint8_t* bytes, uint64_t size) : bytes_(bytes), size_(size) {}

    // What the port shows in the coming cycle.
    bool ar_ready = false, aw_ready = false, w_ready = false, r_valid = false, b_valid = false;
    uint32_t r_id = 0, b_id = 0;
    unsigned r_response = 0, b_response = 0;
    bool r_last = false;
    uint8_t r_data[kBeatBytes] = {};

    uint64_t latency = 1, jitter = 0;
    unsigned stall = 0;  // of 1000: how often each channel pauses
    bool overtake = false;
    bool data_first = false;  // an address of a write is taken only once its data are offered
    std::map<uint64_t, Denial> denied;
    uint64_t reads = 0, writes = 0;  // beats

    void seed(uint32_t value) { random_.seed(value); }

    bool quiet() const { return reads_[0].empty() && reads_[1].empty() && open_.empty() && answers_.empty() && !r_valid && !b_valid; }

    // Decide what to show, given whether write data are offered.
    void drive(uint64_t cycle, bool w_offered) {
        ar_ready = go();
        aw_ready = go() && (!data_first || (w_offered && open_.empty()));
        w_ready = go() && !open_.empty();
        if (!r_valid && go()) offer_read(cycle);
        if (!b_valid && !answers_.empty() && answers_.front().ready <= cycle && go()) {
            b_valid = true;
            b_id = answers_.front().address.id, b_response = answers_.front().response;
        }
    }

    void read_address(const Address& a, uint64_t cycle) {
        check(a);
        if (a.id > 1) throw std::runtime_error("a read has an ID that the NPU does not use");
        reads_[a.id].push_back({a, cycle + latency + (jitter ? random_() % jitter : 0), response(a, cycle), 0});
    }

    void write_address(const Address& a, uint64_t cycle) {
        check(a);
        open_.push_back({a, 0, response(a, cycle), 0});
    }

    void write_data(const uint8_t* data, unsigned strobe, bool last, uint64_t cycle) {
        Burst& b = open_.front();
        if (last != (b.beat + 1 == b.address.beats)) throw std::runtime_error("WLAST is in the wrong beat");
        const uint64_t at = b.address.addr + b.beat * kBeatBytes;
        if (!b.response)
            for (unsigned lane = 0; lane < kBeatBytes; ++lane)
                if (strobe >> lane & 1) bytes_[at + lane] = data[lane];
        ++b.beat, ++writes;
        if (last) {
            b.ready = cycle + latency + (jitter ? random_() % jitter : 0);
            answers_.push_back(b);
            open_.pop_front();
        }
    }

    void read_taken() {
        auto& queue = reads_[r_id];
        ++reads;
        if (++queue.front().beat == queue.front().address.beats) queue.pop_front();
        r_valid = false;
    }

    void answer_taken() {
        answers_.pop_front();
        b_valid = false;
    }

  private:
    struct Burst {
        Address address;
        uint64_t ready;
        unsigned response;
        uint32_t beat;
    };

    bool go() { return random_() % 1000 >= stall; }

    unsigned response(const Address& a, uint64_t cycle) const {
        if (a.addr + a.beats * kBeatBytes > size_) return 3;
        const auto found = denied.find(a.addr / kPageBytes);
        return found != denied.end() && cycle >= found->second.from ? found->second.response : 0;
    }

    static void check(const Address& a) {
        if (a.addr % kBeatBytes) throw std::runtime_error("a burst begins within a beat");
        if (a.addr / kPageBytes != (a.addr + a.beats * kBeatBytes - 1) / kPageBytes)
            throw std::runtime_error("a burst crosses a page");
    }

    void offer_read(uint64_t cycle) {
        bool ready[2];
        for (int id = 0; id < 2; ++id) ready[id] = !reads_[id].empty() && reads_[id].front().ready <= cycle;
        if (!ready[0] && !ready[1]) return;
        const int id = ready[0] && ready[1] ? (overtake ? random_() % 2 : 1) : ready[1];
        const Burst& b = reads_[id].front();
        r_valid = true, r_id = id, r_response = b.response, r_last = b.beat + 1 == b.address.beats;
        if (b.response)
            std::memset(r_data, 0, sizeof r_data);
        else
            std::memcpy(r_data, bytes_ + b.address.addr + b.beat * kBeatBytes, sizeof r_data);
    }

    uint8_t* bytes_;
    uint64_t size_;
    std::mt19937 random_{1};
    std::deque<Burst> reads_[2], open_, answers_;
};

}  // namespace npubench
