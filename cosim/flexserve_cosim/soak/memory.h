// Memory below the filter: what it holds, who wrote each byte, and answers in any order that AXI4 allows.
#pragma once

#include <algorithm>
#include <bitset>
#include <cstring>
#include <deque>
#include <vector>

#include "scene.h"
#include "traffic.h"

namespace soak {

// Address channel of the port below, as it stands in a cycle.
struct Address {
    uint32_t id, address, length, size, burst, prot, nsaid;
    bool operator==(const Address&) const = default;
};

class Memory {
  public:
    Memory(Scene& scene, Direction& reads, Direction& writes, uint64_t seed)
        : scene_(scene), sources_{reads, writes}, random_(seed), bytes_(scene.memory_pages * kPage),
          secret_(bytes_.size()), passes_(scene.memory_pages) {}

    // Power-up: unknown contents, nobody's.
    void forget() {
        for (size_t n = 0; n < bytes_.size(); n += 8) {
            const uint64_t word = random_.next();
            std::memcpy(&bytes_[n], &word, 8);
        }
        std::fill(secret_.begin(), secret_.end(), 0);
    }
    void abort() {
        reads_.clear();
        writes_.clear();
        answers_.clear();
        reading_ = answering_ = -1;
        current_ = -1;
        seen_ = data_seen_ = false;
    }

    // What memory drives in this cycle.
    bool ar_ready = false, aw_ready = false, w_ready = false;
    bool r_valid() const { return reading_ >= 0; }
    bool b_valid() const { return answering_ >= 0; }
    uint32_t r_id() const { return offer_.id; }
    const Beat& r_data() const { return offer_.beat; }
    uint32_t r_response() const { return offer_.response; }
    bool r_last() const { return offer_.last; }
    uint32_t b_id() const { return answers_[static_cast<size_t>(answering_)].id; }
    uint32_t b_response() const { return answers_[static_cast<size_t>(answering_)].response; }

    void drive() {
        const Weather& weather = scene_.weather;
        ar_ready = reads_.size() < kDepth && random_.percent(weather.ar_ready);
        const bool shy = weather.data_first && !(data_seen_ && writes_.empty());
        aw_ready = writes_.size() < kDepth && !shy && random_.percent(weather.aw_ready);
        w_ready = !writes_.empty() && random_.percent(weather.w_ready);
        if (reading_ < 0 && !reads_.empty() && random_.percent(weather.r)) choose_read();
        if (answering_ < 0 && !answers_.empty() && random_.percent(weather.b)) choose_answer();
    }

    void read_address(const Address& a) {
        const int index = match(false, a);
        const bool faulty = random_.one_in(60);
        reads_.push_back({index, a.id, 0, due(), faulty ? random_.pick({2, 3}) : 0, faulty});
    }
    void write_address(const Address& a) {
        if (a.id >> scene_.filter.id_width) {
            scrub_address(a);
            writes_.push_back({-1, a, 0, false});
            return;
        }
        const int index = match(true, a);
        if (scene_.weather.data_first) sources_[1][index].record.flags |= kDataFirst;
        writes_.push_back({index, a, 0, false});
    }
    // Data are on the port and were not taken.
    void data_waits(bool waits) { data_seen_ = waits; }

    void write_beat(const uint8_t* data, const uint8_t* strobes, bool last) {
        Writing& w = writes_.front();
        const uint32_t width = scene_.filter.data_bytes;
        if (last != (w.beat == w.address.length)) throw Violation("WLAST below the filter is not on the last beat");
        if (w.source < 0) {
            uint8_t* at = &bytes_[offset(w.address.address + w.beat * width)];
            for (uint32_t n = 0; n < width; ++n)
                if (data[n] || !(strobes[n / 8] >> n % 8 & 1)) throw Violation("a scrub writes something but zeros");
            std::memset(at, 0, width);
            std::memset(&secret_[static_cast<size_t>(at - bytes_.data())], 0, width);
        } else {
            user_beat(sources_[1][w.source], w.beat, data, strobes);
        }
        if (!last) {
            ++w.beat;
            return;
        }
        const bool faulty = random_.one_in(w.source < 0 ? 300 : 60);
        answers_.push_back({w.source, w.address.id, w.address.address, due(), faulty ? random_.pick({2, 3}) : 0});
        writes_.pop_front();
    }
    void read_taken() {
        Reading& r = reads_[static_cast<size_t>(reading_)];
        Live& live = sources_[0][r.source];
        sources_[0].memory_beat(r.id, offer_.beat, offer_.response);
        if (current_ >= 0 && current_ != r.source && started_) live.record.flags |= kInterleaved;
        current_ = r.source;
        started_ = !offer_.last;
        if (offer_.response) live.record.flags |= kMemoryError;
        ++r.beat;
        if (offer_.last) {
            reads_.erase(reads_.begin() + reading_);
            current_ = -1;
        }
        reading_ = -1;
    }
    void answer_taken() {
        const Answer a = answers_[static_cast<size_t>(answering_)];
        answers_.erase(answers_.begin() + answering_);
        answering_ = -1;
        if (a.source >= 0) {
            Live& live = sources_[1][a.source];
            live.expected_response = static_cast<int>(a.response);
            if (a.response) live.record.flags |= kMemoryError;
            return;
        }
        const uint64_t page = a.address / kPage;
        uint64_t& pass = passes_[page - scene_.memory];
        if (a.response) {
            pass = 0;
            scene_.log.add(Kind::kScrubError, scene_.cycle, static_cast<uint32_t>(page));
        } else {
            pass |= 1ULL << a.address % kPage / (scene_.filter.data_bytes * scene_.filter.scrub_beats);
        }
    }
    // A page is said to have been scrubbed: memory holds zeros and has answered for every one of them.
    void check_scrubbed(uint64_t page) {
        const uint32_t bursts = scene_.filter.scrub_bursts();
        const uint64_t all = bursts == 64 ? ~0ULL : (1ULL << bursts) - 1;
        if (passes_[page - scene_.memory] != all) throw Violation("a page is returned before all its zeros are answered");
        const auto* at = &bytes_[offset(page * kPage)];
        if (std::any_of(at, at + kPage, [](uint8_t byte) { return byte != 0; }))
            throw Violation("a page is returned that is not all zeros (SEC-01)");
    }
    bool idle() const { return reads_.empty() && writes_.empty() && answers_.empty(); }

  private:
    static constexpr size_t kDepth = 24;
    struct Reading {
        int source;
        uint32_t id, beat;
        uint64_t ready;
        uint32_t response;
        bool faulty;
    };
    struct Writing {
        int source;  // -1: a scrub
        Address address;
        uint32_t beat;
        bool started;
    };
    struct Answer {
        int source;
        uint32_t id, address;
        uint64_t ready;
        uint32_t response;
    };
    struct Offer {
        uint32_t id = 0, response = 0;
        bool last = false;
        Beat beat{};
    };

    uint64_t due() { return scene_.cycle + scene_.weather.latency + random_.below(scene_.weather.spread); }
    size_t offset(uint64_t address) const {
        const uint64_t at = address - scene_.memory * kPage;
        if (at >= bytes_.size()) throw Violation("an address goes to memory that no master uses");
        return at;
    }
    int match(bool write, const Address& a) {
        return sources_[write].forward([&](const Live& live) {
            const Transaction& t = live.record;
            return a == Address{t.id, t.address, t.length, t.size, t.burst, t.prot, t.nsaid};
        });
    }
    void scrub_address(const Address& a) {
        const uint32_t beats = scene_.filter.scrub_beats, bytes = beats * scene_.filter.data_bytes;
        if (a.length != beats - 1 || a.burst != 1 || 1u << a.size != scene_.filter.data_bytes || a.address % bytes)
            throw Violation("a scrub burst is not what it must be");
        if (!scene_.in_window(a.address)) throw Violation("a scrub goes outside the window");
        if (a.address % kPage) return;
        passes_[a.address / kPage - scene_.memory] = 0;
        scene_.log.add(Kind::kScrub, scene_.cycle, static_cast<uint32_t>(a.address / kPage));
    }
    void user_beat(Live& live, uint32_t beat, const uint8_t* data, const uint8_t* strobes) {
        const uint32_t width = scene_.filter.data_bytes;
        Beat expected{};
        Strobes lanes;
        write_data(live, beat, width, expected);
        write_strobes(live, beat, width, lanes);
        if (std::memcmp(data, expected.data(), width) || std::memcmp(strobes, lanes.data(), width / 8))
            throw Violation("a write beat comes down that is not its burst's");
        const size_t at = offset(live.beat_address(beat) / width * width);
        const uint8_t tag = !(live.record.prot & 2);
        for (uint32_t n = 0; n < width; ++n) {
            if (!(strobes[n / 8] >> n % 8 & 1)) continue;
            bytes_[at + n] = data[n];
            secret_[at + n] = tag;
        }
        if (beat + 1 == live.beats) live.record.landed = scene_.cycle;
    }
    void choose_read() {
        std::bitset<1 << 9> ids;
        int chosen = -1;
        for (size_t n = 0; n < reads_.size(); ++n) {
            const Reading& r = reads_[n];
            if (ids[r.id]) continue;
            ids[r.id] = true;
            if (r.ready > scene_.cycle) continue;
            if (current_ >= 0 && !scene_.weather.interleave && r.source != current_) continue;
            chosen = static_cast<int>(n);
            if (random_.one_in(2)) break;
        }
        if (chosen < 0) return;
        Reading& r = reads_[static_cast<size_t>(chosen)];
        const Live& live = sources_[0][r.source];
        const uint64_t address = live.beat_address(r.beat) / scene_.filter.data_bytes * scene_.filter.data_bytes;
        const size_t at = offset(address);
        offer_.id = r.id;
        offer_.last = r.beat + 1 == live.beats;
        offer_.response = r.faulty && (offer_.last || random_.one_in(4)) ? r.response : 0;
        std::memcpy(offer_.beat.data(), &bytes_[at], scene_.filter.data_bytes);
        if ((live.record.prot & 2) && scene_.in_window(address) &&
            std::any_of(&secret_[at], &secret_[at] + scene_.filter.data_bytes, [](uint8_t tag) { return tag != 0; }))
            throw Violation("a non-secure read reaches what a secure write left (SEC-01)");
        reading_ = chosen;
    }
    void choose_answer() {
        std::bitset<1 << 9> ids;
        for (size_t n = 0; n < answers_.size(); ++n) {
            if (ids[answers_[n].id]) continue;
            ids[answers_[n].id] = true;
            if (answers_[n].ready > scene_.cycle) continue;
            answering_ = static_cast<int>(n);
            if (random_.one_in(2)) break;
        }
    }

    Scene& scene_;
    struct Sources {
        Direction &reads, &writes;
        Direction& operator[](bool write) { return write ? writes : reads; }
    } sources_;
    Random random_;
    std::vector<uint8_t> bytes_, secret_;
    std::vector<uint64_t> passes_;  // per page: scrub bursts of the present pass that are answered
    std::deque<Reading> reads_;
    std::deque<Writing> writes_;
    std::deque<Answer> answers_;
    int reading_ = -1, answering_ = -1, current_ = -1;
    bool started_ = false, seen_ = false, data_seen_ = false;
    Offer offer_;
};

}  // namespace soak
