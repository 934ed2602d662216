// What software did to the simulated phone in a recorded run, and what came back; written by simbench/stimulus.py.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace bare {

// Every record has the same size; stores and completions of loads have bytes behind it, rounded up to whole beats.
struct Record {
    enum Kind : uint32_t { kLoad, kStore, kRegister, kReset, kCompletion, kEnd };
    uint64_t cycle;
    uint64_t payload;  // bytes that follow
    uint32_t kind;
    uint32_t value[7];
};
static_assert(sizeof(Record) == 48);

struct Head {
    uint64_t magic;
    uint64_t dram_base, dram_bytes, flash_bytes;
    uint64_t dram_latency, refresh_interval, refresh_cycles, flash_latency;
    double dram_rate, flash_rate;
};
constexpr uint64_t kMagic = 0x314D495453584C46;  // "FLXSTIM1"

[[noreturn]] inline void fail(const char* what, uint64_t cycle) {
    std::fprintf(stderr, "The replay left the recording at cycle %llu: %s\n", static_cast<unsigned long long>(cycle), what);
    std::exit(1);
}

inline std::vector<uint8_t> file(const std::string& path) {
    std::ifstream stream(path, std::ios::binary);
    if (!stream) fail(("no file " + path).c_str(), 0);
    return {std::istreambuf_iterator<char>(stream), {}};
}

class Stimulus {
  public:
    explicit Stimulus(const std::string& path) : bytes_(file(path)) {
        if (bytes_.size() < sizeof(Head) || head().magic != kMagic) fail("the file is no stimulus", 0);
        at_ = bytes_.data() + sizeof(Head);
    }

    const Head& head() const { return *reinterpret_cast<const Head*>(bytes_.data()); }
    const Record& next() const { return *reinterpret_cast<const Record*>(at_); }
    uint8_t* payload() const { return at_ + sizeof(Record); }
    void advance() { at_ += sizeof(Record) + ((next().payload + 15) & ~uint64_t{15}); }

  private:
    std::vector<uint8_t> bytes_;
    uint8_t* at_;
};

}  // namespace bare
