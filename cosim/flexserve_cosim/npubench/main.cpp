// The NPU alone, with memory and register port: does what its standard input says, a line at a time.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <csignal>
#include <iostream>
#include <memory>
#include <sstream>

#include "Vtop.h"
#include "memory.h"
#include "verilated.h"

namespace npubench {

class Bench {
  public:
    Bench(VerilatedContext& context, uint8_t* bytes, uint64_t size)
        : memory(bytes, size), top_(std::make_unique<Vtop>(&context, "")) {
        top_->s_axil_awvalid = top_->s_axil_wvalid = top_->s_axil_arvalid = 0;
        top_->s_axil_awuser = top_->s_axil_aruser = 0;
        top_->s_axil_wstrb = 0xF;
        top_->s_axil_bready = top_->s_axil_rready = 1;
        top_->secure = top_->live_normal = top_->live_secure = top_->drain = top_->scrub = 0;
        top_->ticket = 0;
        top_->rst = 1;
        for (int n = 0; n < 8; ++n) tick();
        top_->rst = 0;
        for (int n = 0; n < 8; ++n) tick();
    }
    ~Bench() { top_->final(); }

    Memory memory;
    uint64_t cycle = 0;

    // What the gate does: block, drain, scrub, flip, open. Returns how long drain and scrub took.
    uint64_t own(bool secure, uint32_t ticket) {
        top_->live_normal = top_->live_secure = 0;
        top_->drain = 1;
        const uint64_t begin = cycle;
        until([&] { return top_->drained; }, "the NPU does not drain");
        if (!memory.quiet()) throw std::runtime_error("the NPU calls itself drained with a transaction on the bus");
        top_->scrub = 1;
        until([&] { return top_->scrubbed; }, "the NPU does not end its scrub");
        const uint64_t took = cycle - begin;
        top_->scrub = 0;
        top_->secure = secure, top_->ticket = ticket;
        tick();
        top_->drain = 0;
        (secure ? top_->live_secure : top_->live_normal) = 1;
        return took;
    }

    unsigned write(uint32_t address, uint32_t value, bool nonsecure) {
        top_->s_axil_awaddr = address, top_->s_axil_wdata = value, top_->s_axil_awprot = nonsecure << 1;
        top_->s_axil_awvalid = top_->s_axil_wvalid = 1;
        bool answered = false;
        unsigned response = 0;
        while (!answered) {
            top_->eval();
            const bool aw = top_->s_axil_awvalid && top_->s_axil_awready, w = top_->s_axil_wvalid && top_->s_axil_wready;
            answered = top_->s_axil_bvalid, response = top_->s_axil_bresp;
            tick();
            if (aw) top_->s_axil_awvalid = 0;
            if (w) top_->s_axil_wvalid = 0;
        }
        return response;
    }

    uint32_t read(uint32_t address, bool nonsecure, unsigned& response) {
        top_->s_axil_araddr = address, top_->s_axil_arprot = nonsecure << 1;
        top_->s_axil_arvalid = 1;
        uint32_t value = 0;
        for (bool answered = false; !answered;) {
            top_->eval();
            const bool ar = top_->s_axil_arvalid && top_->s_axil_arready;
            answered = top_->s_axil_rvalid, value = top_->s_axil_rdata, response = top_->s_axil_rresp;
            tick();
            if (ar) top_->s_axil_arvalid = 0;
        }
        return value;
    }

    // Whether an interrupt came within ``limit`` cycles.
    bool wait(uint64_t limit) {
        for (const uint64_t end = cycle + limit; cycle < end; tick())
            if (top_->irq_n || top_->irq_s) return true;
        return top_->irq_n || top_->irq_s;
    }

  private:
    template <typename Condition>
    void until(Condition condition, const char* what) {
        for (const uint64_t end = cycle + 1'000'000; !condition(); tick())
            if (cycle >= end) throw std::runtime_error(what);
    }

    void tick() {
        memory.drive(cycle, top_->m_axi_wvalid);
        top_->m_axi_arready = memory.ar_ready, top_->m_axi_awready = memory.aw_ready, top_->m_axi_wready = memory.w_ready;
        top_->m_axi_rvalid = memory.r_valid, top_->m_axi_rid = memory.r_id, top_->m_axi_rresp = memory.r_response;
        top_->m_axi_rlast = memory.r_last;
        std::memcpy(&top_->m_axi_rdata, memory.r_data, sizeof memory.r_data);
        top_->m_axi_bvalid = memory.b_valid, top_->m_axi_bid = memory.b_id, top_->m_axi_bresp = memory.b_response;
        top_->clk = 0;
        top_->eval();
        const bool live = !top_->rst;
        const bool ar = live && top_->m_axi_arvalid && memory.ar_ready;
        const bool aw = live && top_->m_axi_awvalid && memory.aw_ready;
        const bool w = live && top_->m_axi_wvalid && memory.w_ready, r = top_->m_axi_rready && memory.r_valid;
        const bool b = top_->m_axi_bready && memory.b_valid;
        const Address read{top_->m_axi_arid, top_->m_axi_araddr, top_->m_axi_arlen + 1u};
        const Address written{top_->m_axi_awid, top_->m_axi_awaddr, top_->m_axi_awlen + 1u};
        if (ar) judge(top_->m_axi_arprot, top_->m_axi_arsize, top_->m_axi_arburst);
        if (aw) judge(top_->m_axi_awprot, top_->m_axi_awsize, top_->m_axi_awburst);
        uint8_t data[kBeatBytes];
        std::memcpy(data, &top_->m_axi_wdata, sizeof data);
        const unsigned strobe = top_->m_axi_wstrb;
        const bool last = top_->m_axi_wlast;
        top_->clk = 1;
        top_->eval();
        ++cycle;
        if (r) memory.read_taken();
        if (b) memory.answer_taken();
        if (w) memory.write_data(data, strobe, last, cycle);
        if (ar) memory.read_address(read, cycle);
        if (aw) memory.write_address(written, cycle);
    }

    void judge(unsigned prot, unsigned size, unsigned burst) const {
        if ((prot >> 1 & 1) == top_->secure) throw std::runtime_error("a transaction has the wrong world on it");
        if (size != 4 || burst != 1) throw std::runtime_error("a burst is not of whole beats one after the other");
    }

    std::unique_ptr<Vtop> top_;
};

int serve(Bench& bench) {
    for (std::string line; std::getline(std::cin, line);) {
        std::istringstream words(line);
        std::string verb;
        words >> verb;
        if (verb == "own") {
            bool secure = false;
            uint32_t ticket = 0;
            words >> secure >> ticket;
            std::cout << bench.own(secure, ticket);
        } else if (verb == "write") {
            uint32_t address = 0, value = 0;
            bool nonsecure = false;
            words >> address >> value >> nonsecure;
            std::cout << bench.write(address, value, nonsecure);
        } else if (verb == "read") {
            uint32_t address = 0;
            bool nonsecure = false;
            unsigned response = 0;
            words >> address >> nonsecure;
            const uint32_t value = bench.read(address, nonsecure, response);
            std::cout << response << ' ' << value;
        } else if (verb == "wait") {
            uint64_t limit = 0;
            words >> limit;
            const bool ended = bench.wait(limit);
            std::cout << ended << ' ' << bench.cycle;
        } else if (verb == "memory") {
            uint32_t seed = 0;
            Memory& m = bench.memory;
            words >> m.latency >> m.jitter >> m.stall >> m.overtake >> m.data_first >> seed;
            m.seed(seed);
            std::cout << bench.cycle;
        } else if (verb == "deny") {  // a page, with what response, after how many cycles
            uint64_t page = 0, after = 0;
            Denial denial;
            words >> page >> denial.response >> after;
            denial.from = bench.cycle + after;
            bench.memory.denied[page] = denial;
            std::cout << bench.cycle;
        } else if (verb == "allow") {
            bench.memory.denied.clear();
            std::cout << bench.cycle;
        } else if (verb == "beats") {
            std::cout << bench.memory.reads << ' ' << bench.memory.writes << ' ' << bench.memory.quiet();
        } else {
            throw std::runtime_error("no such record: " + line);
        }
        if (!words && !words.eof()) throw std::runtime_error("malformed record: " + line);
        std::cout << std::endl;
    }
    return 0;
}

}  // namespace npubench

int main(int argc, char** argv) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);  // never outlives the one who asked for it
    VerilatedContext context;
    context.commandArgs(argc, argv);
    context.fatalOnVpiError(false);
    try {
        if (argc < 2) throw std::runtime_error("started without the file of its memory");
        const int file = open(argv[1], O_RDWR);
        struct stat about {};
        if (file < 0 || fstat(file, &about)) throw std::runtime_error("the file of its memory cannot be opened");
        void* bytes = mmap(nullptr, about.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (bytes == MAP_FAILED) throw std::runtime_error("the file of its memory cannot be mapped");
        npubench::Bench bench(context, static_cast<uint8_t*>(bytes), about.st_size);
        return npubench::serve(bench);
    } catch (const std::exception& error) {
        std::cerr << "NPU bench: " << error.what() << '\n';
        return 1;
    }
}
