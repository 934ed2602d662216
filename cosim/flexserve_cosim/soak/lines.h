// The memory of a page-state table that is not on chip: its lines, and answers as late as the weather makes them.
#pragma once

#include <cstring>
#include <deque>
#include <map>
#include <vector>

#include "scene.h"

namespace soak {

class Lines {
  public:
    Lines(Scene& scene, uint64_t seed) : scene_(scene), random_(seed) {}

    void abort() {
        reads_.clear();
        addresses_.clear();
        beats_.clear();
        answers_.clear();
        reading_ = answering_ = false;
    }
    // Power-up: unknown contents.
    void forget() { lines_.clear(); }

    // What the memory drives in this cycle.
    bool ar_ready = false, aw_ready = false, w_ready = false;
    bool r_valid() const { return reading_; }
    const std::vector<uint8_t>& r_data() const { return reads_.front().beats.front(); }
    bool r_last() const { return reads_.front().beats.size() == 1; }
    bool b_valid() const { return answering_; }

    void drive() {
        const Weather& weather = scene_.weather;
        ar_ready = random_.percent(weather.lines);
        aw_ready = random_.percent(weather.lines);
        w_ready = random_.percent(weather.lines);
        if (!reading_) reading_ = !reads_.empty() && reads_.front().ready <= scene_.cycle && random_.percent(weather.lines);
        if (!answering_)
            answering_ = !answers_.empty() && answers_.front().ready <= scene_.cycle && random_.percent(weather.lines);
    }

    void read_address(uint64_t address, uint32_t length, bool nonsecure) {
        check(address, length, nonsecure);
        Reading reading{due(), {}};
        std::vector<uint8_t>& line = lines_[address];
        if (line.empty()) {  // never written: what a memory comes up with
            line.resize(scene_.filter.line_bytes);
            for (uint8_t& byte : line) byte = static_cast<uint8_t>(random_.below(256));
        }
        const uint32_t width = scene_.filter.data_bytes;
        for (uint32_t at = 0; at < line.size(); at += width) reading.beats.emplace_back(&line[at], &line[at] + width);
        reads_.push_back(std::move(reading));
        ++fetches;
    }
    void write_address(uint64_t address, uint32_t length, bool nonsecure) {
        check(address, length, nonsecure);
        addresses_.push_back(address);
        store();
    }
    void write_beat(const uint8_t* data, bool strobes, bool last) {
        if (!strobes) throw Violation("a line of the table is written in part");
        beats_.insert(beats_.end(), data, data + scene_.filter.data_bytes);
        if (last != (beats_.size() % scene_.filter.line_bytes == 0)) throw Violation("WLAST is not at the end of a line");
        store();
    }
    void read_taken() {
        reads_.front().beats.erase(reads_.front().beats.begin());
        if (reads_.front().beats.empty()) reads_.pop_front();
        reading_ = false;
    }
    void answer_taken() {
        // Memory shows a line only with the answer: a fetch before that brings what was there before.
        lines_[answers_.front().address] = answers_.front().line;
        answers_.pop_front();
        answering_ = false;
    }
    uint64_t fetches = 0;

  private:
    struct Reading {
        uint64_t ready;
        std::vector<std::vector<uint8_t>> beats;
    };
    struct Answer {
        uint64_t ready, address;
        std::vector<uint8_t> line;
    };

    uint64_t due() { return scene_.cycle + 1 + random_.below(scene_.weather.line_latency); }
    void check(uint64_t address, uint32_t length, bool nonsecure) const {
        const uint32_t bytes = scene_.filter.line_bytes;
        if (!scene_.table || address / kPage < scene_.table || address / kPage >= scene_.table + scene_.filter.table_pages)
            throw Violation("the filter looks for a line outside its table");
        if (address % bytes || (length + 1) * scene_.filter.data_bytes != bytes || nonsecure)
            throw Violation("an access to the table is not what it must be");
    }
    void store() {
        const uint32_t bytes = scene_.filter.line_bytes;
        if (addresses_.empty() || beats_.size() < bytes) return;
        answers_.push_back({due(), addresses_.front(), {beats_.begin(), beats_.begin() + bytes}});
        beats_.erase(beats_.begin(), beats_.begin() + bytes);
        addresses_.pop_front();
    }

    Scene& scene_;
    Random random_;
    std::map<uint64_t, std::vector<uint8_t>> lines_;
    std::deque<Reading> reads_;
    std::deque<uint64_t> addresses_;
    std::deque<uint8_t> beats_;
    std::deque<Answer> answers_;
    bool reading_ = false, answering_ = false;
};

}  // namespace soak
