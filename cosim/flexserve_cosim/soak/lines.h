// The memory of a page-state table that is not on chip: its lines, and answers as late as the weather makes them.
#pragma once

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <vector>

#include "scene.h"
#include "steady.h"

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
        ar_.forget();
        aw_.forget();
    }
    // Power-up: unknown contents.
    void forget() { lines_.clear(); }

    // What the memory drives in this cycle, and what it sees of it. A table on chip has no port.
    template <class Top>
    void drive(Top& t, bool live) {
        if constexpr (requires { t.m_axi_table_arvalid; }) {
            if (live) choose();
            t.m_axi_table_arready = live && ar_ready_;
            t.m_axi_table_awready = live && aw_ready_;
            t.m_axi_table_wready = live && w_ready_;
            t.m_axi_table_rvalid = live && reading_;
            if (t.m_axi_table_rvalid) std::memcpy(&t.m_axi_table_rdata, reads_.front().beats.front().data(), sizeof t.m_axi_table_rdata);
            t.m_axi_table_rlast = t.m_axi_table_rvalid && reads_.front().beats.size() == 1;
            t.m_axi_table_bvalid = live && answering_;
            t.m_axi_table_rresp = t.m_axi_table_bresp = 0;
        }
    }
    template <class Top>
    void observe(Top& t) {
        if constexpr (requires { t.m_axi_table_arvalid; }) {
            ar_.look(t.m_axi_table_arvalid, t.m_axi_table_arready, {t.m_axi_table_araddr, t.m_axi_table_arlen});
            aw_.look(t.m_axi_table_awvalid, t.m_axi_table_awready, {t.m_axi_table_awaddr, t.m_axi_table_awlen});
            if (t.m_axi_table_rvalid && t.m_axi_table_rready) read_taken();
            if (t.m_axi_table_bvalid && t.m_axi_table_bready) answer_taken();
            if (t.m_axi_table_arvalid && t.m_axi_table_arready)
                read_address(t.m_axi_table_araddr, t.m_axi_table_arlen, t.m_axi_table_arprot & 2);
            if (t.m_axi_table_awvalid && t.m_axi_table_awready)
                write_address(t.m_axi_table_awaddr, t.m_axi_table_awlen, t.m_axi_table_awprot & 2);
            if (t.m_axi_table_wvalid && t.m_axi_table_wready) {
                const auto* strobes = reinterpret_cast<const uint8_t*>(&t.m_axi_table_wstrb);
                const bool all = std::all_of(strobes, strobes + scene_.filter.data_bytes / 8, [](uint8_t s) { return s == 255; });
                write_beat(reinterpret_cast<const uint8_t*>(&t.m_axi_table_wdata), all, t.m_axi_table_wlast);
            }
        }
    }

  private:
    void choose() {
        const Weather& weather = scene_.weather;
        ar_ready_ = random_.percent(weather.lines);
        aw_ready_ = random_.percent(weather.lines);
        w_ready_ = random_.percent(weather.lines);
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
    bool reading_ = false, answering_ = false, ar_ready_ = false, aw_ready_ = false, w_ready_ = false;
    Steady<2> ar_{"AR to the table"}, aw_{"AW to the table"};
};

}  // namespace soak
