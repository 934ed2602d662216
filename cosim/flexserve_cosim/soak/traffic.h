// Four masters above the filter, and what they can see of it: order, number and contents of the answers.
#pragma once

#include <cstring>
#include <deque>
#include <string>
#include <vector>

#include "scene.h"

namespace soak {

using Beat = std::array<uint64_t, kMaxBytes / 8>;

// A transaction on its way.
struct Live {
    Transaction record;
    uint32_t beats = 1;
    uint32_t sent = 0, got = 0;       // beats
    uint32_t strobe_mode = 0, lie = ~0u;
    bool denied = false, answered = false, judged = false, open = false;
    int expected_response = -1;       // of a forwarded write, once memory has given it

    // Byte address of a beat, as AXI4 computes it.
    uint64_t beat_address(uint32_t beat) const {
        const uint64_t step = 1ULL << record.size, address = record.address;
        if (record.burst == 0 || beat == 0) return record.burst == 2 ? address / step * step : address;
        const uint64_t start = address / step * step;
        if (record.burst == 1) return start + beat * step;
        const uint64_t total = step * beats, low = start / total * total;
        return low + (start - low + beat * step) % total;
    }
};

// The data that write `number` carries in a beat.
inline void write_data(const Live& live, uint32_t beat, uint32_t bytes, Beat& data) {
    const uint64_t seed = mix((static_cast<uint64_t>(live.record.number) << 9) + beat + 1);
    for (uint32_t n = 0; n < bytes / 8; ++n) data[n] = (seed ^ (seed << (n + 7))) * (2 * n + 0x9E3779B97F4A7C15ULL);
}

using Strobes = std::array<uint64_t, kMaxBytes / 64>;

// Byte strobes of that beat: within the lanes that its size and address select.
inline void write_strobes(const Live& live, uint32_t beat, uint32_t bytes, Strobes& strobes) {
    const uint64_t address = live.beat_address(beat), step = 1ULL << live.record.size;
    const uint64_t first = address % bytes, end = address / step * step % bytes + step;
    strobes = {};
    if (live.record.burst == 3 || step > bytes) return;  // no such burst: it is denied, and its lanes are nobody's
    for (uint64_t lane = first; lane < end; ++lane) strobes[lane / 64] |= 1ULL << lane % 64;
    if (live.strobe_mode == 0) return;
    const uint64_t noise = mix(live.record.number * 1024ULL + beat);
    for (uint64_t& word : strobes) word &= live.strobe_mode == 1 ? noise : noise & noise >> 7 & noise >> 19;
}

// Reads or writes of all masters: offered one by one on the shared port, answered in the order of their ID.
class Direction {
  public:
    Direction(Scene& scene, bool writes, uint64_t seed)
        : scene_(scene), writes_(writes), random_(seed), by_id_(1u << scene.filter.id_width), beats_(by_id_.size()) {}

    int offered = -1;                 // transaction whose address is on the port
    std::deque<int> data;             // writes whose data are not all sent, in order
    uint64_t forwarded = 0;

    Live& operator[](int index) { return pool_[static_cast<size_t>(index)]; }
    uint32_t busy() const { return live_; }
    bool idle() const { return live_ == 0; }

    // Start of a cycle: perhaps a master offers a new transaction.
    void offer() {
        const Weather& weather = scene_.weather;
        if (offered >= 0 || !scene_.traffic || live_ >= weather.outstanding) return;
        if (!random_.percent(writes_ ? weather.aw : weather.ar)) return;
        offered = make();
        if (writes_) data.push_back(offered);
    }
    void accepted() {
        Live& live = (*this)[offered];
        live.record.accepted = scene_.cycle;
        live.open = true;
        unjudged_.push_back(offered);
        waiting_.push_back(offered);
        by_id_[live.record.id].push_back(offered);
        offered = -1;
    }
    // The lookup for the address that was accepted in the cycle before is not answered at once.
    void missed() {
        if (waiting_.empty() || (*this)[waiting_.back()].record.accepted + 1 != scene_.cycle)
            throw Violation("a lookup misses that nobody asked for");
        (*this)[waiting_.back()].record.flags |= kMissed;
    }
    // The oldest verdict is acted upon.
    void verdict() {
        if (waiting_.empty()) throw Violation("a verdict comes that nobody waits for");
        Transaction& t = (*this)[waiting_.front()].record;
        t.waited = static_cast<uint32_t>(scene_.cycle - t.accepted);
        waiting_.pop_front();
    }
    // An address leaves the filter downwards: it must be the next one that was not denied.
    template <class Same>
    int forward(Same same) {
        while (!unjudged_.empty()) {
            const int index = unjudged_.front();
            Live& live = (*this)[index];
            unjudged_.pop_front();
            live.judged = true;
            if (!live.answered && same(live)) {
                if (live.denied) throw Violation("a transaction is answered as denied and goes to memory too");
                live.record.forwarded = scene_.cycle;
                ++forwarded;
                return index;
            }
            live.denied = true;
            if (live.answered) release(index);
        }
        throw Violation(std::string(writes_ ? "a write" : "a read") + " goes to memory that nobody asked for or that was passed over");
    }
    void memory_beat(uint32_t id, const Beat& beat, uint32_t response) { beats_[id].push_back({beat, response}); }

    void read_beat(uint32_t id, const Beat& beat, uint32_t response, bool last) {
        const int index = oldest(id);
        Live& live = (*this)[index];
        live.record.response |= static_cast<uint8_t>(response);
        if (live.record.forwarded) {
            if (beats_[id].empty()) throw Violation("read data come up that memory has not given");
            const Expected& expected = beats_[id].front();
            if (std::memcmp(beat.data(), expected.beat.data(), scene_.filter.data_bytes) || response != expected.response)
                throw Violation("a read gets other data or another response than memory gave");
            beats_[id].pop_front();
        } else {
            if (live.got && live.record.response != response) throw Violation("a denied read changes its response");
            live.denied = true;
            for (uint32_t n = 0; n < scene_.filter.data_bytes / 8; ++n)
                if (beat[n]) throw Violation("a denied read returns something but zeros (SEC-01)");
        }
        if (last != (++live.got == live.beats)) throw Violation("RLAST is not on the last beat of a read");
        if (last) answer(index);
    }
    void write_response(uint32_t id, uint32_t response) {
        const int index = oldest(id);
        Live& live = (*this)[index];
        if (live.sent != live.beats) throw Violation("a write is answered before its last beat");
        if (live.record.forwarded && live.expected_response != static_cast<int>(response))
            throw Violation("a write is answered before memory answered, or otherwise than memory did");
        live.denied = !live.record.forwarded;
        live.record.response = static_cast<uint8_t>(response);
        answer(index);
    }
    // A reset: what was accepted is logged as it stands.
    void abort() {
        for (auto& queue : by_id_) {
            for (int index : queue) {
                Live& live = (*this)[index];
                live.record.flags |= kAborted;
                scene_.log.add(live.record);
            }
            queue.clear();
        }
        for (auto& queue : beats_) queue.clear();
        pool_.clear();
        free_.clear();
        unjudged_.clear();
        waiting_.clear();
        data.clear();
        offered = -1;
        live_ = 0;
    }
    // Cycle in which the oldest unanswered transaction was accepted, or the present one.
    uint64_t oldest_acceptance() const {
        uint64_t oldest = scene_.cycle;
        for (const auto& queue : by_id_)
            if (!queue.empty()) oldest = std::min(oldest, pool_[static_cast<size_t>(queue.front())].record.accepted);
        return oldest;
    }

  private:
    struct Expected {
        Beat beat;
        uint32_t response;
    };

    int oldest(uint32_t id) {
        if (by_id_[id].empty()) throw Violation("an answer comes to an ID that has nothing outstanding");
        return by_id_[id].front();
    }
    void answer(int index) {
        Live& live = (*this)[index];
        live.record.answered = scene_.cycle;
        live.answered = true;
        by_id_[live.record.id].pop_front();
        scene_.log.add(live.record);
        --live_;
        while (!unjudged_.empty() && (*this)[unjudged_.front()].answered) {
            release(unjudged_.front());
            unjudged_.pop_front();
        }
        if (live.judged) release(index);
    }
    void release(int index) { free_.push_back(index); }

    int make() {
        int index = static_cast<int>(pool_.size());
        if (free_.empty()) {
            pool_.emplace_back();
        } else {
            index = free_.back();
            free_.pop_back();
        }
        Live& live = (*this)[index];
        live = Live();
        Transaction& t = live.record;
        t.number = static_cast<uint32_t>(++made_ * 2 + writes_);
        t.write = writes_;
        shape(live);
        // Two in a row never look the same, so that it is known which of them goes to memory.
        while (t.id == last_id_ && t.address == last_address_ && unjudged_.size() > 0) shape(live);
        last_id_ = t.id;
        last_address_ = t.address;
        if (writes_) {
            live.strobe_mode = random_.weighted({6, 2, 1});
            if (random_.one_in(64)) {
                live.lie = random_.below(live.beats);
                t.flags |= kLyingLast;
            }
        }
        ++live_;
        return index;
    }
    // A burst of any kind: mostly legal, mostly where pages change.
    void shape(Live& live) {
        Transaction& t = live.record;
        const uint32_t width = scene_.filter.id_width, full = static_cast<uint32_t>(__builtin_ctz(scene_.filter.data_bytes));
        t.master = static_cast<uint8_t>(random_.below(4));
        const uint32_t own = random_.below(1u << (width - 2)) & scene_.weather.id_mask;
        t.id = static_cast<uint16_t>(t.master << (width - 2) | own);
        // Normal CPU, secure CPU, NPU of either world, device.
        static const uint8_t nsaids[] = {0, 0, 1, 3};
        const bool secure = t.master == 1 ? random_.percent(80) : t.master == 2 && random_.percent(50);
        t.nsaid = random_.one_in(50) ? static_cast<uint8_t>(random_.below(16)) : nsaids[t.master];
        t.prot = static_cast<uint8_t>((secure ? 0 : 2) | random_.below(2) | random_.below(2) << 2);
        t.size = static_cast<uint8_t>(random_.percent(65) ? full : random_.below(full + 1));
        t.burst = static_cast<uint8_t>(random_.weighted({10, 70, 14}));
        switch (random_.weighted({34, 36, 24, 5, 1})) {
            case 0: t.length = 0; break;
            case 1: t.length = static_cast<uint8_t>(random_.below(4)); break;
            case 2: t.length = static_cast<uint8_t>(random_.below(16)); break;
            case 3: t.length = static_cast<uint8_t>(random_.below(64)); break;
            default: t.length = static_cast<uint8_t>(random_.below(256));
        }
        if (t.burst == 2) t.length = static_cast<uint8_t>(random_.pick({1, 3, 7, 15}));
        if (t.burst == 0) t.length &= 15;
        const uint32_t beats = t.length + 1u, step = 1u << t.size;
        uint32_t offset = random_.below(static_cast<uint32_t>(kPage));
        if (t.burst != 1 || random_.percent(70)) offset = offset / step * step;
        if (random_.one_in(6)) offset = random_.one_in(2) ? 0 : static_cast<uint32_t>(kPage) - step;
        const uint32_t room = static_cast<uint32_t>(kPage) - beats * step;
        if (t.burst == 1 && offset / step * step > room && beats * step <= kPage) offset = room;
        spoil(t, full, offset);
        live.beats = t.length + 1u;
        uint64_t where = page();
        while (!(t.prot & 2) && t.write && scene_.is_reserved(where)) where = page();
        t.address = static_cast<uint32_t>(where * kPage + offset);
    }
    // Bursts that no master may send, and that must not get through.
    void spoil(Transaction& t, uint32_t full, uint32_t& offset) {
        if (!random_.one_in(16)) return;
        switch (random_.below(5)) {
            case 0: t.burst = 3; break;
            case 1: t.size = static_cast<uint8_t>(full < 7 ? random_.between(full + 1, 7) : full); break;
            case 2: t.burst = 0; t.length = static_cast<uint8_t>(random_.between(16, 40)); break;
            case 3: t.burst = 2; t.length = static_cast<uint8_t>(random_.pick({0, 2, 4, 6, 8, 14, 16, 31})); break;
            default:  // over the page's end, often by one beat
                t.burst = 1;
                t.length = static_cast<uint8_t>(random_.between(1, 15));
                offset = static_cast<uint32_t>(kPage) - (random_.one_in(2) ? t.length : random_.between(1, t.length)) * (1u << t.size);
        }
    }
    uint64_t page() {
        if (!scene_.pages || random_.percent(10)) return scene_.memory + random_.below(scene_.memory_pages);
        if (scene_.table && random_.one_in(64)) return scene_.table;
        if (random_.percent(6)) {  // around the window's edges
            const uint64_t edge = random_.one_in(2) ? scene_.window : scene_.window + scene_.pages;
            return edge - random_.below(2);
        }
        if (random_.percent(75) && !scene_.hot.empty())
            return scene_.window + scene_.hot[random_.below(static_cast<uint32_t>(scene_.hot.size()))];
        return scene_.window + random_.below(scene_.pages);
    }

    Scene& scene_;
    bool writes_;
    Random random_;
    std::deque<Live> pool_;
    std::vector<int> free_;
    std::deque<int> unjudged_, waiting_;
    std::vector<std::deque<int>> by_id_;
    std::vector<std::deque<Expected>> beats_;
    uint64_t made_ = 0;
    uint32_t live_ = 0, last_id_ = ~0u, last_address_ = 0;
};

}  // namespace soak
