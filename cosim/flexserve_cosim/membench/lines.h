// The memory of a page-state table that is not on chip: what was written, `latency` cycles after it is asked for.
#pragma once

#include <cstdint>
#include <deque>
#include <unordered_map>
#include <vector>

namespace membench {

class Lines {
  public:
    using Beat = std::vector<uint8_t>;

    uint64_t latency = 20;
    uint64_t fetches = 0, stores = 0, last_store = 0;

    bool read_valid() const { return !reads_.empty() && reads_.front().ready <= now_; }
    const Beat& read_data() const { return beats_[reads_.front().address]; }
    bool read_last() const { return reads_.front().left == 1; }
    bool answer_valid() const { return !answers_.empty() && answers_.front() <= now_; }

    void read_address(uint64_t now, uint64_t address, int beats) { reads_.push_back({now + latency, address, beats}), ++fetches; }
    void read_taken() {
        Transfer& head = reads_.front();
        head.address += beats_[head.address].size();
        if (--head.left == 0) reads_.pop_front();
    }
    void write_address(uint64_t address, int beats) { writes_.push_back({0, address, beats}); }
    bool write_data(uint64_t now, const uint8_t* data, size_t bytes, bool last) {
        if (writes_.empty()) return false;
        Transfer& head = writes_.front();
        beats_[head.address].assign(data, data + bytes);
        head.address += bytes;
        if (--head.left) return !last;
        writes_.pop_front();
        answers_.push_back(now + latency);
        ++stores;
        last_store = now;
        return last;
    }
    void answer_taken() { answers_.pop_front(); }
    void step(uint64_t now) { now_ = now; }

  private:
    struct Transfer {
        uint64_t ready, address;
        int left;
    };
    uint64_t now_ = 0;
    mutable std::unordered_map<uint64_t, Beat> beats_;
    std::deque<Transfer> reads_, writes_;
    std::deque<uint64_t> answers_;
};

}  // namespace membench
