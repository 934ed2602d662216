// The filter between four masters and a memory that misbehave within the rules, one clock cycle after the other.

#include <sys/prctl.h>

#include <csignal>
#include <cstring>
#include <memory>

#include "Vtop.h"
#include "episode.h"
#include "lines.h"
#include "memory.h"
#include "steady.h"
#include "verilated.h"

#if VM_TRACE
#if VM_TRACE_FST
#include "verilated_fst_c.h"
using Trace = VerilatedFstC;
#else
#include "verilated_vcd_c.h"
using Trace = VerilatedVcdC;
#endif
#endif

namespace {

using namespace soak;

template <class Port>
void put(Port& port, const void* from) {
    std::memcpy(&port, from, sizeof port);
}

template <class Port>
void set(Port& port, uint64_t value) {
    port = static_cast<Port>(value);
}

// In a netlist with mutants one of them is chosen by an input; 0 is the design as it is.
template <class Top>
void choose_mutant(Top& top, uint64_t number) {
    if constexpr (requires { top.mutsel; }) set(top.mutsel, number);
}

template <class Port>
Beat beat_of(const Port& port) {
    Beat beat{};
    std::memcpy(beat.data(), &port, sizeof port);
    return beat;
}

class Bench {
  public:
    Bench(VerilatedContext& context, const Map& options, Log& log, uint64_t seed, const Course& course)
        : context_(context), top_(std::make_unique<Vtop>(&context, "")), scene_(make_scene(options, log, course)),
          reads_(scene_, false, seed + 1), writes_(scene_, true, seed + 2), memory_(scene_, reads_, writes_, seed + 3),
          lines_(scene_, seed + 9), port_(scene_, seed + 4), weather_(seed + 5), normal_(scene_, port_, options, false, seed + 6, writes_),
          secure_(scene_, port_, options, true, seed + 7, writes_),
          director_(scene_, port_, options, seed + 8, course, normal_, secure_, [this](bool cold) { reset(cold); },
                    [this] { return reads_.idle() && writes_.idle() && memory_.idle(); }) {
        choose_mutant(*top_, options.at("mutsel"));
    }
    ~Bench() { top_->final(); }

    uint64_t run(const std::string& waves) {
        trace(waves);
        director_.start();
        while (!director_.finished) tick();
        reads_.abort();
        writes_.abort();
        scene_.log.add(Kind::kEnd, scene_.cycle);
        return scene_.cycle;
    }
    uint64_t cycle() const { return scene_.cycle; }
    void close() {
#if VM_TRACE
        if (trace_) trace_->close();
#endif
    }

  private:
    Scene make_scene(const Map& options, Log& log, const Course& course) {
        Filter f;
        f.data_bytes = sizeof top_->s_axi_wdata;
        f.id_width = static_cast<uint32_t>(options.at("id_width"));
        f.capacity = static_cast<uint32_t>(options.at("pages"));
        f.group = static_cast<uint32_t>(options.at("group"));
        f.timers = static_cast<uint32_t>(options.at("timers"));
        f.scrub_beats = static_cast<uint32_t>(options.at("scrub_beats"));
        f.grace_min = static_cast<uint32_t>(options.at("grace_min"));
        f.grace_max = static_cast<uint32_t>(options.at("grace_max"));
        f.line_bytes = static_cast<uint32_t>(options.at("line_bytes"));
        f.table_pages = static_cast<uint32_t>(options.at("table_pages"));
        return Scene(f, log, options.at("memory"), course.window + 4 * f.group);
    }
    void reset(bool cold) {
        scene_.log.add(Kind::kReset, scene_.cycle, cold);
        normal_.stop();
        secure_.stop();
        port_.abort();
        reads_.abort();
        writes_.abort();
        memory_.abort();
        lines_.abort();
        if (cold) memory_.forget();
        if (cold) lines_.forget();
        scene_.traffic = false;
        scene_.reserved = {};
        for (auto* steady : {&aw_, &ar_, &b_}) steady->forget();
        w_.forget();
        r_.forget();
        reset_left_ = 4;
        director_.resetting = true;
    }

    void tick() {
        if (scene_.cycle >= scene_.weather.until) scene_.weather.change(weather_, scene_.cycle);
        top_->rst = reset_left_ != 0;
        const bool live = reset_left_ == 0;
        drive(live);
        half(0);
        if (live) observe();
        half(1);
        ++scene_.cycle;
        if (reset_left_ && --reset_left_ == 0) director_.resetting = false;
        if (!(scene_.cycle & 0xFFF)) watch();
        director_.poll();
        if (reset_left_ == 0) {
            normal_.poll();
            secure_.poll();
        }
    }
    void half(int level) {
        top_->clk = static_cast<CData>(level);
        top_->eval();
#if VM_TRACE
        if (trace_) trace_->dump(context_.time());
#endif
        context_.timeInc(500);
    }
    void watch() const {
        for (const Direction* d : {&reads_, &writes_})
            if (scene_.cycle - d->oldest_acceptance() > 100'000) throw Violation("a transaction is not answered");
    }

    void drive(bool live) {
        if (live) {
            reads_.offer();
            writes_.offer();
            memory_.drive();
            port_.drive();
        }
        Vtop& t = *top_;
        lines_.drive(t, live);
        t.s_axi_arvalid = live && reads_.offered >= 0;
        if (t.s_axi_arvalid) {
            const Transaction& a = reads_[reads_.offered].record;
            t.s_axi_arid = a.id, t.s_axi_araddr = a.address, t.s_axi_arlen = a.length, t.s_axi_arsize = a.size;
            t.s_axi_arburst = a.burst, t.s_axi_arprot = a.prot, t.s_axi_aruser = a.nsaid;
        }
        t.s_axi_awvalid = live && writes_.offered >= 0;
        if (t.s_axi_awvalid) {
            const Transaction& a = writes_[writes_.offered].record;
            t.s_axi_awid = a.id, t.s_axi_awaddr = a.address, t.s_axi_awlen = a.length, t.s_axi_awsize = a.size;
            t.s_axi_awburst = a.burst, t.s_axi_awprot = a.prot, t.s_axi_awuser = a.nsaid;
        }
        const Weather& weather = scene_.weather;
        if (live && !sending_ && !writes_.data.empty()) {
            const Live& head = writes_[writes_.data.front()];
            sending_ = weather_.percent(weather.w) && (head.record.accepted || !weather.data_waits);
            if (sending_) {
                Beat data{};
                Strobes strobes;
                write_data(head, head.sent, scene_.filter.data_bytes, data);
                write_strobes(head, head.sent, scene_.filter.data_bytes, strobes);
                put(t.s_axi_wdata, data.data());
                put(t.s_axi_wstrb, strobes.data());
                t.s_axi_wlast = (head.sent + 1 == head.beats) != (head.sent == head.lie);
            }
        }
        sending_ &= live;
        t.s_axi_wvalid = sending_;
        t.s_axi_rready = live && weather_.percent(weather.r_ready);
        t.s_axi_bready = live && weather_.percent(weather.b_ready);
        t.m_axi_arready = live && memory_.ar_ready;
        t.m_axi_awready = live && memory_.aw_ready;
        t.m_axi_wready = live && memory_.w_ready;
        t.m_axi_rvalid = live && memory_.r_valid();
        if (t.m_axi_rvalid) {
            put(t.m_axi_rdata, memory_.r_data().data());
            set(t.m_axi_rid, memory_.r_id());
            t.m_axi_rresp = static_cast<CData>(memory_.r_response()), t.m_axi_rlast = memory_.r_last();
        }
        t.m_axi_bvalid = live && memory_.b_valid();
        if (t.m_axi_bvalid) {
            set(t.m_axi_bid, memory_.b_id());
            t.m_axi_bresp = static_cast<CData>(memory_.b_response());
        }
        t.s_axil_awvalid = live && port_.aw_valid();
        t.s_axil_wvalid = live && port_.w_valid();
        t.s_axil_arvalid = live && port_.ar_valid();
        t.s_axil_bready = t.s_axil_rready = port_.ready;
        if (t.s_axil_awvalid || t.s_axil_wvalid || t.s_axil_arvalid) {
            const Access& a = port_.now();
            t.s_axil_awaddr = t.s_axil_araddr = a.address, t.s_axil_wdata = a.data, t.s_axil_wstrb = a.strobes & 15;
            t.s_axil_awprot = t.s_axil_arprot = a.secure ? 0 : 2, t.s_axil_awuser = t.s_axil_aruser = a.nsaid & 15;
        }
    }

    void observe() {
        Vtop& t = *top_;
        probes(t);
        lookups(t);
        lines_.observe(t);
        const Address ar{t.m_axi_arid, t.m_axi_araddr, t.m_axi_arlen, t.m_axi_arsize, t.m_axi_arburst, t.m_axi_arprot, t.m_axi_aruser};
        const Address aw{t.m_axi_awid, t.m_axi_awaddr, t.m_axi_awlen, t.m_axi_awsize, t.m_axi_awburst, t.m_axi_awprot, t.m_axi_awuser};
        const Beat r = t.s_axi_rvalid ? beat_of(t.s_axi_rdata) : Beat{};
        steady(t, ar, aw, r);
        // Below first: what passes combinationally is then known when it comes out above.
        if (t.m_axi_arvalid && t.m_axi_arready) memory_.read_address(ar);
        if (t.m_axi_awvalid && t.m_axi_awready) memory_.write_address(aw);
        memory_.data_waits(t.m_axi_wvalid && !t.m_axi_wready);
        if (t.m_axi_wvalid && t.m_axi_wready)
            memory_.write_beat(reinterpret_cast<const uint8_t*>(&t.m_axi_wdata), reinterpret_cast<const uint8_t*>(&t.m_axi_wstrb), t.m_axi_wlast);
        if (t.m_axi_rvalid && t.m_axi_rready) memory_.read_taken();
        if (t.m_axi_bvalid && t.m_axi_bready) memory_.answer_taken();
        if (t.s_axi_wvalid && t.s_axi_wready) {
            Live& head = writes_[writes_.data.front()];
            if (!head.record.accepted) throw Violation("write data are taken before their address");
            if (++head.sent == head.beats) writes_.data.pop_front();
            sending_ = false;
        }
        if (t.s_axi_rvalid && t.s_axi_rready) reads_.read_beat(t.s_axi_rid, r, t.s_axi_rresp, t.s_axi_rlast);
        if (t.s_axi_bvalid && t.s_axi_bready) writes_.write_response(t.s_axi_bid, t.s_axi_bresp);
        if (t.s_axi_arvalid && t.s_axi_arready) reads_.accepted();
        if (t.s_axi_awvalid && t.s_axi_awready) writes_.accepted();
        const bool b = t.s_axil_bvalid && t.s_axil_bready, rr = t.s_axil_rvalid && t.s_axil_rready;
        port_.clock((t.s_axil_awvalid && t.s_axil_awready) || (t.s_axil_arvalid && t.s_axil_arready),
                    t.s_axil_wvalid && t.s_axil_wready, b || rr, b ? t.s_axil_bresp : t.s_axil_rresp, t.s_axil_rdata);
    }
    template <class Top>
    void lookups(const Top& t) {
        if constexpr (requires { t.probe_miss; }) {
            if (t.probe_miss & 1) reads_.missed();
            if (t.probe_miss & 2) writes_.missed();
        }
        if (t.probe_ar_allow || t.probe_ar_deny) reads_.verdict();
        if (t.probe_aw_allow || t.probe_aw_deny) writes_.verdict();
    }
    void steady(const Vtop& t, const Address& ar, const Address& aw, const Beat& r) {
        auto pack = [](const Address& a) {
            return std::array<uint64_t, 2>{uint64_t{a.address} << 32 | a.id, uint64_t{a.length} << 32 | a.size << 16 | a.burst << 12 | a.prot << 8 | a.nsaid};
        };
        ar_.look(t.m_axi_arvalid, t.m_axi_arready, pack(ar));
        aw_.look(t.m_axi_awvalid, t.m_axi_awready, pack(aw));
        b_.look(t.s_axi_bvalid, t.s_axi_bready, {t.s_axi_bid, t.s_axi_bresp});
        std::array<uint64_t, kMaxBytes / 8 + 3> beat{};
        if (t.s_axi_rvalid) {
            std::copy(r.begin(), r.end(), beat.begin());
            beat[kMaxBytes / 8] = uint64_t{t.s_axi_rid} << 8 | t.s_axi_rresp << 1 | t.s_axi_rlast;
        }
        r_.look(t.s_axi_rvalid, t.s_axi_rready, beat);
        beat = {};
        if (t.m_axi_wvalid) {
            std::memcpy(beat.data(), &t.m_axi_wdata, sizeof t.m_axi_wdata);
            beat[kMaxBytes / 8] = t.m_axi_wlast;
            std::memcpy(&beat[kMaxBytes / 8 + 1], &t.m_axi_wstrb, sizeof t.m_axi_wstrb);
        }
        w_.look(t.m_axi_wvalid, t.m_axi_wready, beat);
    }
    // An address that is accepted in this cycle already sees these changes.
    void probes(const Vtop& t) {
        Log& log = scene_.log;
        if (t.probe_page_valid) {
            const uint64_t mask = t.probe_page_mask;
            log.add(Kind::kPage, scene_.cycle, t.probe_page_pfn, mask, t.probe_page_state);
            for (uint64_t left = mask; left; left &= left - 1) {
                const uint64_t page = t.probe_page_pfn + static_cast<uint64_t>(__builtin_ctzll(left)) - scene_.window;
                if (page >= scene_.hints.size()) throw Violation("a page outside the window changes state");
                uint8_t& hint = scene_.hints[page];
                if (hint == kScrubbing && t.probe_page_state == kNormal) memory_.check_scrubbed(page + scene_.window);
                hint = t.probe_page_state;
            }
        }
        if (t.probe_expired) log.add(Kind::kExpired, scene_.cycle);
        if (t.probe_decision_valid)
            log.add(Kind::kDecision, scene_.cycle, t.probe_decision_frame, 0, t.probe_decision_code, t.probe_decision_result);
        const uint8_t levels[] = {t.irq_flex_n, t.irq_flex_s, t.irq_tzc};
        for (uint32_t n = 0; n < 3; ++n) {
            if (levels[n] != interrupts_[n]) log.add(Kind::kInterrupt, scene_.cycle, n, 0, levels[n]);
            interrupts_[n] = levels[n];
        }
        normal_.interrupt = interrupts_[0];
        secure_.interrupt = interrupts_[1];
    }
    void trace([[maybe_unused]] const std::string& path) {
#if VM_TRACE
        if (path.empty()) return;
        context_.traceEverOn(true);
        trace_ = std::make_unique<Trace>();
        top_->trace(trace_.get(), 99);
        trace_->open(path.c_str());
#endif
    }

    VerilatedContext& context_;
    std::unique_ptr<Vtop> top_;
    Scene scene_;
    Direction reads_, writes_;
    Memory memory_;
    Lines lines_;
    RegisterPort port_;
    Random weather_;
    Manager normal_, secure_;
    Director director_;
    Steady<2> ar_{"AR below"}, aw_{"AW below"}, b_{"B above"};
    Steady<kMaxBytes / 8 + 3> r_{"R above"}, w_{"W below"};
    uint32_t reset_left_ = 0;
    bool sending_ = false;
    uint8_t interrupts_[3] = {};
#if VM_TRACE
    std::unique_ptr<Trace> trace_;
#endif
};

}  // namespace

// Arguments: a folder for the records, then name=value for everything else, and Verilator's own with a plus.
int main(int argc, char** argv) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);  // a simulator never outlives the one who asked for it
    VerilatedContext context;
    context.commandArgs(argc, argv);
    Map options;
    std::string folder, waves;
    for (int n = 1; n < argc; ++n) {
        const std::string argument = argv[n];
        const size_t equals = argument.find('=');
        if (argument[0] == '+') continue;
        if (equals == std::string::npos) {
            folder = argument;
        } else if (argument.substr(0, equals) == "waves") {
            waves = argument.substr(equals + 1);
        } else {
            options[argument.substr(0, equals)] = std::stoull(argument.substr(equals + 1), nullptr, 0);
        }
    }
    Course course;
    course.transactions = options.at("transactions");
    course.episode = static_cast<uint32_t>(options.at("episode"));
    course.stretch = static_cast<uint32_t>(options.at("stretch"));
    course.window = static_cast<uint32_t>(options.at("window"));
    Log log(folder);
#if VM_TRACE
    context.traceEverOn(!waves.empty());
#endif
    Bench bench(context, options, log, options.at("seed"), course);
    try {
        bench.run(waves);
    } catch (const Violation& violation) {
        std::printf("cycle %llu: %s\n", static_cast<unsigned long long>(bench.cycle()), violation.what());
        bench.close();
        return 3;
    }
    bench.close();
    return 0;
}
