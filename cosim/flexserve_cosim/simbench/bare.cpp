// The yardstick: the Verilated phone in a loop that does nothing but clock it and repeat what software did.
//
// No Python, no cocotb, no VPI. The responders behind DPI are those of the co-simulation. What software did comes from a
// recording; every completion must come in the recorded cycle with the recorded outcome, and memories must end alike.
//
//     sim FOLDER CYCLE...     prints a line per cycle: the cycle, wall-clock and CPU seconds at which it was reached

#include <sys/prctl.h>

#include <array>
#include <csignal>
#include <cstring>
#include <ctime>
#include <memory>
#include <unordered_map>

#include "Vtop.h"
#include "phone.h"
#include "stimulus.h"
#include "verilated.h"

extern "C" {
uint32_t phone_load(uint32_t port, uint32_t address, uint32_t bytes, uint32_t prot, uint8_t* data);
uint32_t phone_store(uint32_t port, uint32_t address, uint32_t bytes, uint32_t prot, uint8_t* data);
uint32_t phone_register(uint32_t port, uint32_t write, uint32_t address, uint32_t value, uint32_t strobe, uint32_t prot);
uint32_t phone_reset(uint32_t cycles);
uint32_t phone_completion(phone::Completion* completion);
void phone_dram(uint8_t* bytes, uint64_t base, uint64_t size);
void phone_dram_timing(uint64_t read, uint64_t write, double bytes_per_cycle, uint64_t interval, uint64_t cycles);
void phone_flash(uint8_t* contents, uint64_t length);
void phone_flash_timing(uint64_t cycles, double rate);
}

namespace bare {
namespace {

double seconds(clockid_t which) {
    timespec now;
    clock_gettime(which, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// The CRC-32 of zlib, which Python has.
uint32_t checksum(const std::vector<uint8_t>& bytes) {
    std::array<uint32_t, 256> table;
    for (uint32_t i = 0; i < 256; ++i) {
        uint32_t c = i;
        for (int bit = 0; bit < 8; ++bit) c = c & 1 ? 0xEDB88320u ^ c >> 1 : c >> 1;
        table[i] = c;
    }
    uint32_t crc = ~0u;
    for (const uint8_t byte : bytes) crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8;
    return ~crc;
}

class Replay {
  public:
    explicit Replay(const std::string& folder)
        : stimulus_(folder + "/stimulus.bin"), dram_(file(folder + "/dram.bin")), flash_(file(folder + "/flash.bin")) {
        const Head& head = stimulus_.head();
        if (dram_.size() != head.dram_bytes || flash_.size() > head.flash_bytes) fail("memories have other sizes", 0);
        flash_.resize(head.flash_bytes);
        phone_dram(dram_.data(), head.dram_base, dram_.size());
        phone_dram_timing(head.dram_latency, head.dram_latency, head.dram_rate, head.refresh_interval, head.refresh_cycles);
        phone_flash(flash_.data(), flash_.size());
        phone_flash_timing(head.flash_latency, head.flash_rate);
    }

    // Do what software did in this cycle. Returns whether it went on after it.
    bool step() {
        while (stimulus_.next().cycle == phone::clock.cycle) {
            const Record& r = stimulus_.next();
            if (r.kind == Record::kEnd) return end(r);
            perform(r);
            stimulus_.advance();
        }
        if (!phone::completions.empty()) fail("something has ended that had not", phone::clock.cycle);
        return true;
    }

    uint64_t next_cycle() const { return stimulus_.next().cycle; }

  private:
    void perform(const Record& r) {
        const uint32_t* v = r.value;
        switch (r.kind) {
            case Record::kLoad: {
                auto buffer = std::make_unique<uint8_t[]>(v[2]);
                const uint32_t token = phone_load(v[0], v[1], v[2], v[3], buffer.get());
                loads_[token] = std::move(buffer);
                break;
            }
            case Record::kStore: phone_store(v[0], v[1], v[2], v[3], stimulus_.payload()); break;
            case Record::kRegister: phone_register(v[0], v[1], v[2], v[3], v[4], v[5]); break;
            case Record::kReset: phone_reset(v[0]); break;
            case Record::kCompletion: compare(r); break;
            default: fail("a record of no kind", r.cycle);
        }
    }

    void compare(const Record& r) {
        phone::Completion c;
        if (!phone_completion(&c)) fail("nothing has ended", r.cycle);
        if (c.token != r.value[0] || c.response != r.value[1] || c.data != r.value[2]) fail("another outcome", r.cycle);
        const auto load = loads_.find(c.token);
        if (load == loads_.end()) return;
        if (std::memcmp(load->second.get(), stimulus_.payload(), r.payload)) fail("other data loaded", r.cycle);
        loads_.erase(load);
    }

    bool end(const Record& r) const {
        if (checksum(dram_) != r.value[0]) fail("DRAM has other contents at the end", r.cycle);
        if (checksum(flash_) != r.value[1]) fail("flash has other contents at the end", r.cycle);
        return false;
    }

    Stimulus stimulus_;
    std::vector<uint8_t> dram_, flash_;
    std::unordered_map<uint32_t, std::unique_ptr<uint8_t[]>> loads_;
};

int run(int argc, char** argv) {
    VerilatedContext context;
    context.commandArgs(argc, argv);
    Replay replay(argv[1]);
    std::vector<uint64_t> marks;
    for (int i = 2; i < argc && argv[i][0] != '+'; ++i) marks.push_back(std::strtoull(argv[i], nullptr, 10));
    marks.push_back(~uint64_t{0});
    Vtop top(&context, "");
    top.rst = 1;
    top.active = 0;
    size_t mark = 0;
    bool on = replay.step();
    while (on) {
        top.rst = phone::clock.reset_left != 0;
        top.active = phone::clock.active;
        top.clk = 1;
        top.eval();
        top.clk = 0;
        top.eval();
        const bool wake = phone::tick(top.interrupts);
        const uint64_t cycle = phone::clock.cycle;
        if (cycle == marks[mark]) {
            std::printf("%llu %.6f %.6f\n", static_cast<unsigned long long>(cycle), seconds(CLOCK_MONOTONIC),
                        seconds(CLOCK_PROCESS_CPUTIME_ID));
            ++mark;
        }
        if (wake || cycle == replay.next_cycle()) on = replay.step();
        if (context.gotFinish()) fail("the phone stopped", cycle);
    }
    top.final();
    return 0;
}

}  // namespace
}  // namespace bare

int main(int argc, char** argv) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (argc < 2) bare::fail("no folder with a recording was named", 0);
    return bare::run(argc, argv);
}
