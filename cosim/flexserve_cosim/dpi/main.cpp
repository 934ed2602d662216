// Main loop of the simulated phone.
//
// The clock runs here, not in Python: cocotb is entered only when an engine has completed something, an alarm set by
// Python is due, a watched interrupt is high, or a timed VPI callback (a cocotb Timer) is due.

#include <sys/prctl.h>

#include <csignal>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>

#include "Vtop.h"
#include "phone.h"
#include "verilated.h"
#include "verilated_vpi.h"

#if VM_TRACE
#if VM_TRACE_FST
#include "verilated_fst_c.h"
using Trace = VerilatedFstC;
#else
#include "verilated_vcd_c.h"
using Trace = VerilatedVcdC;
#endif
#endif

extern "C" void vlog_startup_routines_bootstrap(void);

namespace {

constexpr uint64_t kHalfPeriod = 500;  // ps
constexpr uint64_t kNever = ~0ULL;

class Simulation {
  public:
    Simulation(int argc, char** argv) {
        context_.commandArgs(argc, argv);
        context_.fatalOnVpiError(false);
#if VM_TRACE
        context_.traceEverOn(true);
#endif
        top_ = std::make_unique<Vtop>(&context_, "");
#if VM_TRACE
        for (int i = 1; i + 1 < argc; ++i) {
            if (std::strcmp(argv[i], "--trace-file") == 0) {
                trace_ = std::make_unique<Trace>();
                top_->trace(trace_.get(), 99);
                trace_->open(argv[i + 1]);
            }
        }
#endif
        top_->rst = 1;
    }

    int run() {
        vlog_startup_routines_bootstrap();
        VerilatedVpi::callCbs(cbStartOfSimulation);
        settle_values();
        settle();
        while (!context_.gotFinish()) {
            if (abandoned_) {
                std::fprintf(stderr, "The simulator has nobody to simulate for: no test is waiting for it\n");
                return 1;
            }
            half_cycle(1);
            half_cycle(0);
            serve();
        }
        top_->final();
        VerilatedVpi::callCbs(cbEndOfSimulation);
#if VM_TRACE
        if (trace_) trace_->close();
#endif
        return context_.errorCount() > 0;
    }

  private:
    void half_cycle(int level) {
        top_->clk = level;
        top_->eval();
#if VM_TRACE
        if (trace_) trace_->dump(context_.time());
#endif
        context_.timeInc(kHalfPeriod);
    }

    // Between two clock cycles: hand on what the engines did, and enter Python if there is a reason.
    void serve() {
        if (phone::tick(top_->interrupts)) {
            top_->wake = !top_->wake;
            settle_values();
            settle();
        }
        if (context_.time() >= deadline_) {
            VerilatedVpi::callCbs(cbNextSimTime);
            settle_values();
            VerilatedVpi::callTimedCbs();
            settle_values();
            settle();
        }
        top_->rst = phone::clock.reset_left != 0;
        top_->active = phone::clock.active;
    }

    static void settle_values() {
        while (VerilatedVpi::callValueCbs()) {
        }
    }

    // The regions of one time step, for what Python wrote through VPI and asked to be called for.
    void settle() {
        do {
            do {
                top_->eval();
                VerilatedVpi::clearEvalNeeded();
                VerilatedVpi::doInertialPuts();
                settle_values();
            } while (VerilatedVpi::evalNeeded());
            VerilatedVpi::callCbs(cbReadWriteSynch);
            VerilatedVpi::doInertialPuts();
            settle_values();
        } while (VerilatedVpi::evalNeeded());
        VerilatedVpi::callCbs(cbReadOnlySynch);
        deadline_ = VerilatedVpi::cbNextDeadline();
        abandoned_ = deadline_ == kNever && !VerilatedVpi::hasCbs(cbValueChange);
    }

    VerilatedContext context_;
    std::unique_ptr<Vtop> top_;
#if VM_TRACE
    std::unique_ptr<Trace> trace_;
#endif
    uint64_t deadline_ = kNever;
    bool abandoned_ = false;
};

}  // namespace

int main(int argc, char** argv) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);  // a simulator never outlives the one who asked for it
    return Simulation(argc, argv).run();
}
