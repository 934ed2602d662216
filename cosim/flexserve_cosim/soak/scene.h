// What masters, memory and software of the simulation have in common.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "random.h"
#include "records.h"

namespace soak {

constexpr uint64_t kPage = 4096;
constexpr uint32_t kMaxBytes = 128;  // of a data beat

enum State : uint8_t { kNormal, kDelegated, kFlex, kRecalling, kScrubbing, kSealed, kUnknown = 7 };

// Parameters of the filter that is tested; they come from the command line.
struct Filter {
    uint32_t id_width = 6, data_bytes = 16, capacity = 2048, group = 64, timers = 4, scrub_beats = 16;
    uint32_t grace_min = 64, grace_max = 4096;
    uint32_t line_bytes = 0, table_pages = 0;  // of a page-state table in memory; 0: it is on chip
    uint32_t scrub_bursts() const { return static_cast<uint32_t>(kPage) / (data_bytes * scrub_beats); }
};

// How busy the channels are, drawn anew every few hundred cycles. Percent of the cycles unless said otherwise.
struct Weather {
    uint32_t aw = 100, ar = 100, w = 100, r_ready = 100, b_ready = 100;
    uint32_t aw_ready = 100, ar_ready = 100, w_ready = 100, r = 100, b = 100;
    uint32_t latency = 4, spread = 8;   // cycles
    uint32_t outstanding = 8;           // transactions per direction
    uint32_t id_mask = ~0u;             // few IDs make their queues long
    bool interleave = false;            // read beats of different IDs
    bool data_first = false;            // memory takes an address only with its data offered
    bool data_waits = false;            // masters send data only after their address was taken
    uint32_t lines = 100;               // the memory of the page-state table
    uint32_t line_latency = 4;          // cycles at most
    uint64_t until = 0;

    void change(Random& random, uint64_t now) {
        const bool calm = random.one_in(3);
        auto chance = [&] { return calm ? 100 : random.pick({100, 100, 85, 60, 30, 12}); };
        for (uint32_t* channel : {&aw, &ar, &w, &r_ready, &b_ready, &aw_ready, &ar_ready, &w_ready, &r, &b})
            *channel = chance();
        latency = random.pick({1, 2, 4, 12, 40});
        spread = random.pick({1, 4, 16, 60});
        outstanding = random.pick({1, 4, 16, 48});
        id_mask = random.pick({~0u, ~0u, 3, 0});
        interleave = random.one_in(3);
        data_first = random.one_in(6);
        data_waits = random.one_in(3);
        lines = random.pick({100, 100, 70, 40});
        line_latency = random.pick({1, 2, 8, 40});
        until = now + random.between(100, 1500);
    }
};

struct Scene {
    Scene(const Filter& parameters, Log& records, uint64_t first, uint32_t total)
        : filter(parameters), log(records), memory(first), window(first), memory_pages(total) {}

    Filter filter;
    Log& log;
    uint64_t cycle = 1;                    // 0 means never
    uint64_t memory;                       // first page frame
    uint64_t window;                       // first page frame
    uint32_t pages = 0;                    // of the window; 0: not enabled
    uint64_t table = 0;                    // first page frame of the page-state table in memory
    uint32_t memory_pages;
    // States as the probes tell them: they steer what is tried, never what is expected.
    std::vector<uint8_t> hints;
    std::vector<uint32_t> hot;             // pages (indices in the window) that traffic and commands meet on
    Weather weather;
    bool traffic = false;                  // masters start transactions
    // Pages that are being sealed: the secure world writes nothing there before the command is reported.
    struct {
        uint64_t first = 0, count = 0;
    } reserved;

    bool in_window(uint64_t address) const { return address / kPage - window < pages; }
    bool is_reserved(uint64_t page) const { return page - reserved.first < reserved.count; }
    State hint(uint32_t page) const { return page < hints.size() ? static_cast<State>(hints[page]) : kUnknown; }
};

}  // namespace soak
