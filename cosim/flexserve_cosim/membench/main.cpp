// The memory bench as a process: takes scenarios on standard input, one word-separated record per line, and answers
// `go` with a line of numbers. Ends with its input.

#include <sys/prctl.h>

#include <csignal>
#include <iostream>
#include <sstream>
#include <vector>

#include "bench.h"

namespace membench {

// Does the steps of a script, and pops the queue of freed pages in between if asked to.
class Script {
  public:
    Script(Bench& bench, std::vector<Step> steps) : bench_(bench), steps_(std::move(steps)) {}

    std::vector<Outcome> outcomes;
    std::vector<uint64_t> snapshots;

    // Returns whether every step was done before `limit` cycles had passed.
    bool run(uint64_t limit) {
        const uint64_t end = bench_.cycle + limit;
        for (const Step& step : steps_) {
            step_ = &step;
            began_ = bench_.cycle;
            accessing_ = false;
            if (!start()) {
                do {
                    if (bench_.cycle >= end) return false;
                    bench_.tick();
                } while (!done());
                settle();
            }
        }
        return true;
    }

  private:
    // Steps that take no time are done at once; an access waits for a pop that is under way.
    bool start() {
        const Step& s = *step_;
        switch (s.kind) {
            case 'B': bench_.reads.begin(bench_.cycle), bench_.writes.begin(bench_.cycle); break;
            case 'X': bench_.reads.stop(), bench_.writes.stop(); break;
            case 'S': snapshot(); break;
            case 'M': bench_.mark(); break;
            case 'H': bench_.memory.hold_scrubs = s.a; break;
            case 'A': bench_.pop_address = s.a, bench_.pop_every = s.b; break;
            default: access(); return false;
        }
        outcomes.push_back({began_, began_, began_, 0, 0});
        return true;
    }

    void access() {
        const Step& s = *step_;
        if (bench_.registers.busy) return;
        if (s.kind == 'W') bench_.registers.write(bench_.cycle, s.a, s.b, s.d);
        else if (s.kind == 'R' || s.kind == 'P') bench_.registers.read(bench_.cycle, s.a, s.d);
        else return;
        accessing_ = true;
    }

    bool done() {
        const Step& s = *step_;
        if (bench_.access_ended && !accessing_) popped();
        switch (s.kind) {
            case 'W':
            case 'R':
                if (accessing_ && bench_.access_ended) return true;
                if (!accessing_) access();
                return false;
            case 'P':
                if (accessing_ && bench_.access_ended) {
                    if ((bench_.registers.outcome.value & s.b) == s.c) return true;
                    accessing_ = false;
                }
                if (!accessing_) access();
                return false;
        }
        pop();
        switch (s.kind) {
            case 'I': return bench_.irq[s.a];
            case 'E': return bench_.pages[s.a].pages >= s.b;
            case 'D': return bench_.reads.idle() && bench_.writes.idle();
            case 'C': return bench_.cycle >= began_ + s.a;
            case 'Z': return bench_.memory.scrub_beats >= s.a;
        }
        throw std::runtime_error("no such step");
    }

    void settle() {
        if (accessing_) {
            Outcome outcome = bench_.registers.outcome;
            outcome.began = began_;
            outcomes.push_back(outcome);
        } else {
            outcomes.push_back({began_, began_, bench_.cycle - 1, 0, 0});
        }
    }

    void pop() {
        if (!bench_.pop_every || bench_.registers.busy || bench_.cycle < bench_.next_pop) return;
        bench_.registers.read(bench_.cycle, bench_.pop_address, true);
        bench_.next_pop = bench_.cycle + bench_.pop_every;
    }

    void popped() { bench_.freed += bench_.registers.outcome.value >> 31; }

    void snapshot() {
        Bench& b = bench_;
        auto put = [&](uint64_t value) { snapshots.push_back(value); };
        put(b.cycle), put(b.reads.beats), put(b.writes.beats), put(b.memory.scrub_beats), put(b.memory.write_beats);
        put(b.memory.first_scrub), put(b.memory.last_scrub), put(b.scrub_cycles), put(b.freed);
        put(b.decided[0]), put(b.decided[1]), put(b.expired), put(b.reads.answered), put(b.writes.answered);
        put(b.lookups[0]), put(b.lookups[1]), put(b.lines.fetches), put(b.lines.stores), put(b.lines.last_store);
        for (const PageEvents& events : b.pages) put(events.pages), put(events.first), put(events.last);
    }

    Bench& bench_;
    std::vector<Step> steps_;
    const Step* step_ = nullptr;
    bool accessing_ = false;
    uint64_t began_ = 0;
};

void print_records(const Master& master) {
    for (const Record& r : master.records) {
        for (uint64_t value : {r.offered, r.accepted, r.first, r.last, r.answered}) std::cout << int64_t(value) << ' ';
        std::cout << r.response << ' ' << r.nonzero << ' ';
    }
    std::cout << '\n';
}

int serve(Bench& bench) {
    std::vector<Step> steps;
    std::string line;
    while (std::getline(std::cin, line)) {
        std::istringstream words(line);
        std::string verb;
        words >> verb;
        if (verb == "burst") {
            std::string where;
            Burst b;
            words >> where >> b.start >> b.address >> b.beats >> b.size >> b.kind >> b.id >> b.nonsecure >> b.nsaid >>
                b.lag;
            (where == "read" ? bench.reads : bench.writes).bursts.push_back(b);
        } else if (verb == "traffic") {  // forget both lists; play the next ones round and round; keep every record
            for (Master* master : {&bench.reads, &bench.writes}) {
                if (!master->idle()) throw std::runtime_error("traffic changed while some was under way");
                master->clear();
            }
            words >> bench.reads.loop >> bench.reads.keep;
            bench.writes.loop = bench.reads.loop, bench.writes.keep = bench.reads.keep;
        } else if (verb == "latency") {
            words >> bench.memory.latency;
        } else if (verb == "table") {
            words >> bench.lines.latency;
        } else if (verb == "step") {
            Step s{};
            words >> s.kind >> s.a >> s.b >> s.c >> s.d;
            steps.push_back(s);
        } else if (verb == "go") {
            uint64_t limit = 0;
            words >> limit;
            Script script(bench, std::move(steps));
            steps.clear();
            const bool ended = script.run(limit);
            std::cout << ended << ' ' << script.outcomes.size() << ' ';
            for (const Outcome& o : script.outcomes)
                std::cout << o.began << ' ' << o.doorbell << ' ' << o.ended << ' ' << o.value << ' ' << o.response << ' ';
            for (uint64_t value : script.snapshots) std::cout << int64_t(value) << ' ';
            std::cout << std::endl;
        } else if (verb == "records") {
            std::string where;
            words >> where;
            print_records(where == "read" ? bench.reads : bench.writes);
            std::cout.flush();
        } else {
            throw std::runtime_error("no such record: " + line);
        }
        if (!words && !words.eof()) throw std::runtime_error("malformed record: " + line);
    }
    return 0;
}

}  // namespace membench

int main(int argc, char** argv) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);  // never outlives the one who asked for it
    VerilatedContext context;
    context.commandArgs(argc, argv);
    context.fatalOnVpiError(false);
    try {
        if (argc < 3) throw std::runtime_error("started without its two arguments");
        membench::Bench bench(context, std::string(argv[1]) == "wired", std::stoi(argv[2]));
        return membench::serve(bench);
    } catch (const std::exception& error) {
        std::cerr << "memory bench: " << error.what() << '\n';
        return 1;
    }
}
