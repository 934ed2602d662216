// What the simulation tells the golden model: two binary files of fixed records, read by records.py.
#pragma once

#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>

namespace soak {

// An accepted transaction. Cycles are handshakes; 0: it did not happen.
struct Transaction {
    uint64_t accepted = 0, forwarded = 0, landed = 0, answered = 0;  // landed: last write beat in memory
    uint32_t address = 0, number = 0;
    uint16_t id = 0, flags = 0;
    uint8_t write = 0, length = 0, size = 0, burst = 0, prot = 0, nsaid = 0, master = 0, response = 0;
    uint32_t waited = 0;  // cycles until the verdict was acted upon
};
static_assert(sizeof(Transaction) == 56);

enum Flags : uint16_t {
    kAborted = 1,       // a reset came before the answer
    kMemoryError = 2,   // memory answered an error
    kLyingLast = 4,     // WLAST came at the wrong beat
    kInterleaved = 8,   // read beats of another ID came in between
    kDataFirst = 16,    // memory took the address only with its data offered
    kMissed = 32,       // the state of its page had to be fetched from memory
};

enum class Kind : uint32_t {
    kReset = 1,     // a: memory lost its contents
    kAccess,        // register access: a address, b cycle of the answer, c data, d see log_access
    kPage,          // a page frame, b mask, c state
    kExpired,       //
    kDecision,      // a frame, c code, d result
    kInterrupt,     // a wire, c level
    kScrub,         // a page frame whose first zero burst goes out
    kScrubError,    // a page frame
    kQuiet,         // nothing is in flight, no page is on its way, no grace period runs
    kEnd,
};

struct Event {
    uint64_t cycle, b;
    uint32_t kind, a, c, d;
};
static_assert(sizeof(Event) == 32);

// A check of the simulation's own failed: bus protocol, data, or nothing moves any more.
class Violation : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

class Log {
  public:
    explicit Log(const std::string& folder)
        : transactions_(open(folder + "/transactions.bin")), events_(open(folder + "/events.bin")) {}
    ~Log() {
        std::fclose(transactions_);
        std::fclose(events_);
    }
    Log(const Log&) = delete;
    Log& operator=(const Log&) = delete;

    uint64_t count = 0;

    void add(const Transaction& transaction) {
        std::fwrite(&transaction, sizeof transaction, 1, transactions_);
        ++count;
    }
    void add(Kind kind, uint64_t cycle, uint32_t a = 0, uint64_t b = 0, uint32_t c = 0, uint32_t d = 0) {
        const Event event{cycle, b, static_cast<uint32_t>(kind), a, c, d};
        std::fwrite(&event, sizeof event, 1, events_);
    }

  private:
    static std::FILE* open(const std::string& path) {
        std::FILE* file = std::fopen(path.c_str(), "wb");
        if (!file) throw std::runtime_error("cannot write " + path);
        std::setvbuf(file, nullptr, _IOFBF, 1 << 18);
        return file;
    }
    std::FILE* transactions_;
    std::FILE* events_;
};

}  // namespace soak
