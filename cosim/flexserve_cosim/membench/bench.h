// The filter, or wires in its place, with everything around it, one clock cycle at a time.
#pragma once

#include <array>
#include <bitset>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "Vtop.h"
#include "agents.h"
#include "lines.h"
#include "registers.h"
#include "verilated.h"

namespace membench {

struct PageEvents {
    uint64_t pages = 0, first = kNever, last = kNever;
};

class Bench {
  public:
    Bench(VerilatedContext& context, bool wired, int scrub_bit)
        : top_(std::make_unique<Vtop>(&context, "")), wired_(wired) {
        memory.scrub_bit = scrub_bit;
        std::memset(&top_->m_axi_rdata, kPattern, sizeof top_->m_axi_rdata);
        std::memset(&top_->s_axi_wdata, kPattern, sizeof top_->s_axi_wdata);
        std::memset(&top_->s_axi_wstrb, 0xFF, sizeof top_->s_axi_wstrb);
        // Inputs, too, come up as anything.
        top_->s_axil_awuser = top_->s_axil_aruser = 0;
        top_->m_axi_rresp = top_->m_axi_bresp = 0;
        top_->s_axil_wstrb = 0xF;
        top_->s_axil_bready = top_->s_axil_rready = top_->s_axi_bready = top_->s_axi_rready = 1;
        top_->m_axi_arready = top_->m_axi_awready = top_->m_axi_wready = 1;
        reach_lines(*top_);
        top_->rst = 1;
        for (int n = 0; n < 8; ++n) tick();
        top_->rst = 0;
        for (int n = 0; n < 8; ++n) tick();
    }
    ~Bench() { top_->final(); }

    Master reads{false}, writes{true};
    Memory memory;
    Lines lines;
    std::array<uint64_t, 2> lookups{};  // of accesses, since the last mark: answered from the cache, fetched
    RegisterPort registers;
    uint64_t cycle = 0;
    std::array<PageEvents, 8> pages{};  // by the state that pages change to, since the last mark
    std::array<uint64_t, 2> decided{};  // cycle of each frame's last decision
    uint64_t expired = 0, scrub_cycles = 0;
    uint64_t pop_address = 0, pop_every = 0, next_pop = 0, freed = 0;  // the queue of freed pages
    bool irq[2] = {};
    bool access_ended = false;

    void mark() {
        pages.fill(PageEvents());
        scrub_cycles = 0;
        lookups.fill(0);
        memory.mark();
    }

    void tick() {
        drive();
        top_->clk = 0;
        top_->eval();
        sample();
        top_->clk = 1;
        top_->eval();
        ++cycle;
        reads.step(cycle);
        writes.step(cycle);
        memory.step(cycle);
        lines.step(cycle);
    }

  private:
    static constexpr int kPattern = 0x5A;

    // A table on chip has no port.
    template <class Top>
    static void reach_lines(Top& t) {
        if constexpr (requires { t.m_axi_table_arvalid; }) {
            t.m_axi_table_arready = t.m_axi_table_awready = t.m_axi_table_wready = 1;
            t.m_axi_table_rresp = t.m_axi_table_bresp = 0;
        }
    }
    template <class Top>
    void drive_lines(Top& t) {
        if constexpr (requires { t.m_axi_table_arvalid; }) {
            t.m_axi_table_rvalid = lines.read_valid();
            if (lines.read_valid()) {
                const Lines::Beat& beat = lines.read_data();
                require(beat.size() == sizeof t.m_axi_table_rdata, "a fetch of a line that was never written");
                std::memcpy(&t.m_axi_table_rdata, beat.data(), beat.size());
                t.m_axi_table_rlast = lines.read_last();
            }
            t.m_axi_table_bvalid = lines.answer_valid();
        }
    }
    template <class Top>
    void through_lines(Top& t) {
        if constexpr (requires { t.m_axi_table_arvalid; }) {
            if (t.m_axi_table_rvalid && t.m_axi_table_rready) lines.read_taken();
            if (t.m_axi_table_bvalid && t.m_axi_table_bready) lines.answer_taken();
            if (t.m_axi_table_arvalid) lines.read_address(cycle, t.m_axi_table_araddr, t.m_axi_table_arlen + 1);
            if (t.m_axi_table_awvalid) lines.write_address(t.m_axi_table_awaddr, t.m_axi_table_awlen + 1);
            if (t.m_axi_table_wvalid)
                require(lines.write_data(cycle, reinterpret_cast<const uint8_t*>(&t.m_axi_table_wdata),
                                         sizeof t.m_axi_table_wdata, t.m_axi_table_wlast),
                        "a beat of a line out of place");
            // The first two of the table's ports are those of accesses.
            lookups[0] += std::bitset<2>(t.probe_hit & 3).count();
            lookups[1] += std::bitset<2>(t.probe_miss & 3).count();
        }
    }

    void drive() {
        drive_lines(*top_);
        if (reads.address_valid()) {
            const Burst& b = reads.address();
            top_->s_axi_araddr = b.address, top_->s_axi_arlen = b.beats - 1, top_->s_axi_arsize = b.size;
            top_->s_axi_arburst = b.kind, top_->s_axi_arid = b.id, top_->s_axi_arprot = b.nonsecure << 1;
            top_->s_axi_aruser = b.nsaid;
        }
        top_->s_axi_arvalid = reads.address_valid();
        if (writes.address_valid()) {
            const Burst& b = writes.address();
            top_->s_axi_awaddr = b.address, top_->s_axi_awlen = b.beats - 1, top_->s_axi_awsize = b.size;
            top_->s_axi_awburst = b.kind, top_->s_axi_awid = b.id, top_->s_axi_awprot = b.nonsecure << 1;
            top_->s_axi_awuser = b.nsaid;
        }
        top_->s_axi_awvalid = writes.address_valid();
        top_->s_axi_wvalid = writes.data_valid();
        top_->s_axi_wlast = writes.data_valid() && writes.data_last();
        top_->m_axi_rvalid = memory.read_valid();
        if (memory.read_valid()) top_->m_axi_rid = memory.read_id(), top_->m_axi_rlast = memory.read_last();
        top_->m_axi_bvalid = memory.answer_valid();
        if (memory.answer_valid()) top_->m_axi_bid = memory.answer_id();
        const bool write = registers.writing;
        top_->s_axil_awvalid = write && registers.address_valid;
        top_->s_axil_wvalid = write && registers.data_valid;
        top_->s_axil_arvalid = registers.reading;
        top_->s_axil_awaddr = top_->s_axil_araddr = registers.address;
        top_->s_axil_awprot = top_->s_axil_arprot = registers.nonsecure << 1;
        top_->s_axil_wdata = registers.data;
    }

    template <class T>
    static bool nonzero(const T& data) {
        const char* bytes = reinterpret_cast<const char*>(&data);
        for (size_t n = 0; n < sizeof data; ++n)
            if (bytes[n]) return true;
        return false;
    }

    static void require(bool holds, const char* what) {
        if (!holds) throw std::runtime_error(what);
    }

    // Handshakes of this cycle. Memory first, so that data may come in the cycle of their address.
    void sample() {
        if (top_->rst) return;
        if (wired_) {
            wires();
        } else {
            through();
            through_lines(*top_);
            watch();
        }
        access_ended = registers.clock(cycle, top_->s_axil_awready, top_->s_axil_wready, top_->s_axil_bvalid,
                                       top_->s_axil_bresp, top_->s_axil_arready, top_->s_axil_rvalid,
                                       top_->s_axil_rresp, top_->s_axil_rdata);
    }

    void wires() {
        if (memory.read_valid()) {
            require(reads.answer(cycle, memory.read_id(), memory.read_last(), 0, true), "an answer to no read");
            memory.read_taken();
        }
        if (memory.answer_valid()) {
            require(writes.answer(cycle, memory.answer_id(), true, 0, false), "an answer to no write");
            memory.answer_taken();
        }
        if (reads.address_valid()) {
            memory.read_address(cycle, reads.address().id, reads.address().beats);
            reads.address_taken(cycle);
        }
        const bool data = writes.data_valid();
        if (writes.address_valid()) {
            memory.write_address(writes.address().id, writes.address().beats);
            writes.address_taken(cycle);
        }
        if (data) {
            require(memory.write_data(cycle, writes.data_last()), "a write beat out of place");
            writes.data_taken(cycle);
        }
    }

    void through() {
        const bool read = memory.read_valid() && top_->m_axi_rready;
        const bool answer = memory.answer_valid() && top_->m_axi_bready;
        if (read) memory.read_taken();
        if (answer) memory.answer_taken();
        if (top_->m_axi_arvalid) memory.read_address(cycle, top_->m_axi_arid, top_->m_axi_arlen + 1);
        if (top_->m_axi_awvalid) memory.write_address(top_->m_axi_awid, top_->m_axi_awlen + 1);
        if (top_->m_axi_wvalid) require(memory.write_data(cycle, top_->m_axi_wlast), "a write beat out of place");
        if (top_->s_axi_rvalid)
            require(reads.answer(cycle, top_->s_axi_rid, top_->s_axi_rlast, top_->s_axi_rresp,
                                 nonzero(top_->s_axi_rdata)),
                    "an answer to no read");
        if (top_->s_axi_bvalid)
            require(writes.answer(cycle, top_->s_axi_bid, true, top_->s_axi_bresp, false), "an answer to no write");
        const bool data = writes.data_valid() && top_->s_axi_wready;
        if (reads.address_valid() && top_->s_axi_arready) reads.address_taken(cycle);
        if (writes.address_valid() && top_->s_axi_awready) writes.address_taken(cycle);
        if (data) writes.data_taken(cycle);
    }

    void watch() {
        if (top_->probe_page_valid) {
            PageEvents& events = pages[top_->probe_page_state & 7];
            events.pages += std::bitset<64>(top_->probe_page_mask).count();
            if (events.first == kNever) events.first = cycle;
            events.last = cycle;
        }
        if (top_->probe_decision_valid) decided[top_->probe_decision_frame] = cycle;
        if (top_->probe_expired) expired = cycle;
        scrub_cycles += top_->probe_scrub;
        irq[0] = top_->irq_flex_n;
        irq[1] = top_->irq_flex_s;
    }

    std::unique_ptr<Vtop> top_;
    bool wired_;
};

}  // namespace membench
