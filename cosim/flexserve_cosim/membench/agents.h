// What surrounds the filter in the memory bench: masters above, a memory below. Every output is a register, so the
// filter can be replaced by wires without changing anything else.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

namespace membench {

constexpr uint64_t kNever = ~0ULL;
constexpr int kIds = 256;

struct Burst {
    uint64_t start = 0;  // offered no earlier than this many cycles after the traffic began
    uint64_t address = 0;
    int beats = 1, size = 4, kind = 1, id = 0, nonsecure = 1, nsaid = 0;
    int lag = 0;  // cycles by which a write's data are behind the acceptance of its address
};

struct Record {
    uint64_t offered = kNever, accepted = kNever, first = kNever, last = kNever, answered = kNever;
    int response = 0;
    bool nonzero = false;
};

// Plays a list of bursts, once or round and round, and records when each step of each of them happened.
class Master {
  public:
    explicit Master(bool writes) : writes_(writes) {}

    std::vector<Burst> bursts;
    std::vector<Record> records;
    bool loop = false;
    bool keep = true;  // records of finished bursts; off for loads that run for millions of cycles
    uint64_t beats = 0, answered = 0;

    void clear() {
        bursts.clear();
        records.clear();
        for (auto& queue : waiting_) queue.clear();
        data_.clear();
        running_ = offering_ = false;
        beats = answered = outstanding_ = 0;
    }
    void begin(uint64_t now) {
        running_ = !bursts.empty();
        next_ = 0;
        origin_ = now;
        step(now);
    }
    void stop() { running_ = false; }  // what is offered is still finished
    bool idle() const { return !running_ && !offering_ && !outstanding_ && data_.empty(); }

    bool address_valid() const { return offering_; }
    const Burst& address() const { return bursts[current_]; }
    bool data_valid() const { return !data_.empty() && data_.front().ready <= now_; }
    bool data_last() const { return data_.front().left == 1; }

    void address_taken(uint64_t now) {
        Record& record = records[index_];
        record.accepted = now;
        waiting_[address().id].push_back(index_);
        if (address().lag) data_.back().ready = now + address().lag;
        offering_ = false;
    }
    void data_taken(uint64_t now) {
        Data& head = data_.front();
        Record& record = records[head.index];
        if (record.first == kNever) record.first = now;
        record.last = now;
        ++beats;
        if (--head.left == 0) data_.pop_front();
    }
    // A beat of read data, or the answer to a write (always its last).
    bool answer(uint64_t now, int id, bool last, int response, bool nonzero) {
        if (waiting_[id].empty()) return false;
        Record& record = records[waiting_[id].front()];
        if (!writes_) {
            if (record.first == kNever) record.first = now;
            record.last = now;
            ++beats;
        }
        record.response = response > record.response ? response : record.response;
        record.nonzero |= nonzero;
        if (last) {
            record.answered = now;
            waiting_[id].pop_front();
            --outstanding_;
            ++answered;
        }
        return true;
    }
    // End of a cycle: decide what to offer in cycle `now`.
    void step(uint64_t now) {
        now_ = now;
        if (offering_ || !running_) return;
        const Burst& burst = bursts[next_];
        if (now < origin_ + burst.start) return;
        current_ = next_;
        if (keep || records.size() < kKept) {
            index_ = records.size();
            records.emplace_back();
        } else {
            index_ = spare_++ % kKept;  // far more than can be outstanding
            records[index_] = Record();
        }
        records[index_].offered = now;
        offering_ = true;
        ++outstanding_;
        if (writes_) data_.push_back({index_, burst.beats, burst.lag ? kNever : now});
        if (++next_ == bursts.size()) {
            next_ = 0;
            origin_ = now + 1;
            running_ = loop;
        }
    }

  private:
    static constexpr size_t kKept = 1 << 16;
    struct Data {
        size_t index;
        int left;
        uint64_t ready;
    };
    bool writes_;
    bool running_ = false, offering_ = false;
    size_t next_ = 0, current_ = 0, index_ = 0, spare_ = 0;
    uint64_t origin_ = 0, now_ = 0, outstanding_ = 0;
    std::deque<Data> data_;
    std::deque<size_t> waiting_[kIds];
};

// Answers every transaction `latency` cycles after its last handshake, one read beat and one answer per cycle.
class Memory {
  public:
    uint64_t latency = 20;
    bool hold_scrubs = false;  // keep the answers to scrub bursts back
    int scrub_bit = 0;         // the ID bit that marks the scrubber's transactions
    uint64_t scrub_beats = 0, write_beats = 0, first_scrub = kNever, last_scrub = kNever;

    bool read_valid() const { return !reads_.empty() && reads_.front().ready <= now_; }
    int read_id() const { return reads_.front().id; }
    bool read_last() const { return reads_.front().left == 1; }
    bool answer_valid() const { return answering_; }
    int answer_id() const { return answer_id_; }

    void read_address(uint64_t now, int id, int beats) { reads_.push_back({now + latency, id, beats}); }
    void read_taken() {
        if (--reads_.front().left == 0) reads_.pop_front();
    }
    void write_address(int id, int beats) { writes_.push_back({0, id, beats}); }
    bool write_data(uint64_t now, bool last) {
        if (writes_.empty()) return false;
        Transfer& head = writes_.front();
        ++write_beats;
        const bool scrub = head.id >> scrub_bit & 1;
        if (scrub) {
            ++scrub_beats;
            if (first_scrub == kNever) first_scrub = now;
            last_scrub = now;
        }
        if (--head.left == 0) {
            if (!last) return false;
            (scrub ? scrub_answers_ : answers_).push_back({now + latency, head.id, 0});
            writes_.pop_front();
        } else if (last) {
            return false;
        }
        return true;
    }
    void answer_taken() { answering_ = false; }
    void mark() { scrub_beats = write_beats = 0, first_scrub = last_scrub = kNever; }
    // End of a cycle. A scrub's answer takes a slot of the answer channel only if no master's is due.
    void step(uint64_t now) {
        now_ = now;
        if (answering_) return;
        auto offer = [&](std::deque<Transfer>& queue) {
            if (answering_ || queue.empty() || queue.front().ready > now) return;
            answering_ = true;
            answer_id_ = queue.front().id;
            queue.pop_front();
        };
        offer(answers_);
        if (!hold_scrubs) offer(scrub_answers_);
    }

  private:
    struct Transfer {
        uint64_t ready;
        int id, left;
    };
    uint64_t now_ = 0;
    bool answering_ = false;
    int answer_id_ = 0;
    std::deque<Transfer> reads_, writes_, answers_, scrub_answers_;
};

}  // namespace membench
