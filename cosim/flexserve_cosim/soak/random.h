// Pseudo-random numbers: small, fast and the same everywhere.
#pragma once

#include <cstdint>
#include <initializer_list>

namespace soak {

// A bijection of 64-bit words that leaves no pattern.
inline uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
    return x ^ (x >> 31);
}

class Random {
  public:
    explicit Random(uint64_t seed) : state_(mix(seed + 1)) {}

    uint64_t next() { return mix(state_ += 0x9E3779B97F4A7C15ULL); }
    // A number below `limit`, which fits 32 bits.
    uint32_t below(uint32_t limit) { return static_cast<uint32_t>((next() >> 32) * limit >> 32); }
    uint32_t between(uint32_t low, uint32_t high) { return low + below(high - low + 1); }
    bool percent(uint32_t chance) { return below(100) < chance; }
    bool one_in(uint32_t count) { return below(count) == 0; }
    // Index into a list of weights.
    uint32_t weighted(std::initializer_list<uint32_t> weights) {
        uint32_t total = 0, index = 0;
        for (uint32_t weight : weights) total += weight;
        uint32_t left = below(total);
        for (uint32_t weight : weights) {
            if (left < weight) break;
            left -= weight;
            ++index;
        }
        return index;
    }
    uint32_t pick(std::initializer_list<uint32_t> values) {
        return *(values.begin() + below(static_cast<uint32_t>(values.size())));
    }

  private:
    uint64_t state_;
};

}  // namespace soak
