// The software of both worlds: boots the filter, gives commands at random, and stops now and then to look at everything.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <string>
#include <utility>

#include "registers.h"
#include "scene.h"
#include "task.h"
#include "traffic.h"

namespace soak {

using Map = std::map<std::string, uint64_t>;  // addresses of registers and other values, by name

constexpr uint32_t kDelegate = 1, kAccept = 2, kRecall = 3, kRelease = 4, kCancel = 5, kSeal = 6;

// One program: a coroutine with random numbers of its own that shares the register port.
class Program {
  public:
    Program(Scene& scene, RegisterPort& port, const Map& map, bool secure, uint64_t seed)
        : scene_(scene), port_(port), map_(map), random_(seed), secure_(secure) {}

    void begin(Task task) {
        task_ = std::move(task);
        task_.start();
        task_.check();
    }
    void poll() {
        scheduler_.poll();
        task_.check();
    }
    void stop() {
        scheduler_.clear();
        task_ = Task();
    }

  protected:
    uint32_t at(const std::string& name) const { return static_cast<uint32_t>(map_.at(name)); }
    std::string frame() const { return secure_ ? "FLEX_SECURE." : "FLEX_NORMAL."; }

    Task perform(Access& access) {
        access.done = false;
        port_.post(&access);
        co_await scheduler_.until([&access] { return access.done; });
    }
    Task write(const std::string& name, uint32_t value) {
        Access access{.address = at(name), .data = value, .nsaid = nsaid_, .write = true, .secure = secure_};
        co_await perform(access);
    }
    Task read(const std::string& name, uint32_t& value) {
        Access access{.address = at(name), .nsaid = nsaid_, .secure = secure_};
        co_await perform(access);
        value = access.data;
    }
    Task sleep(uint64_t cycles) {
        const uint64_t end = scene_.cycle + cycles;
        co_await scheduler_.until([this, end] { return scene_.cycle >= end; });
    }

    Scene& scene_;
    RegisterPort& port_;
    const Map& map_;
    Scheduler scheduler_;
    Random random_;
    bool secure_;
    uint32_t nsaid_ = 0;

  private:
    Task task_;
};

// Gives commands of one world, legal ones for the most part, until it is asked to pause.
class Manager : public Program {
  public:
    Manager(Scene& scene, RegisterPort& port, const Map& map, bool secure, uint64_t seed, Direction& writes)
        : Program(scene, port, map, secure, seed), writes_(writes) {}

    uint32_t number() const { return nsaid_; }
    bool pause = false, paused = false, interrupt = false, locked = false;
    uint32_t managers = 1, seals_left = 0;

    void start(uint32_t nsaid, uint32_t pace) {
        nsaid_ = nsaid;
        pace_ = pace;
        pause = paused = locked = false;
        fresh_ = true;
        begin(work());
    }

  private:
    struct Command {
        uint32_t code = 0, first = 0, count = 1;
    };

    Task work() {
        co_await write(frame() + "IRQ_ENABLE", 1);
        for (;;) {
            if (pause) {
                paused = true;
                co_await scheduler_.until([this] { return !pause; });
                paused = false;
            }
            co_await sleep(random_.between(1, pace_));
            switch (random_.weighted({70, 12, 6, 4, 6})) {
                case 0: co_await command(); break;
                case 1: co_await chore(); break;
                case 2: co_await trespass(); break;
                case 3: co_await partial(); break;
                default: co_await query(); break;
            }
        }
    }
    Task command() {
        const Command c = random_.one_in(12) ? any() : likely();
        if (c.code == kSeal) co_await claim(c);
        co_await write(frame() + "CMD.FIRST", c.first);
        co_await write(frame() + "CMD.COUNT", c.count);
        if (random_.one_in(8)) co_await write(frame() + "CMD.TICKET", random_.below(100));
        co_await write(frame() + "CMD.COMMAND", c.code);
        if (random_.one_in(8)) co_await write(frame() + "CMD.FIRST", c.first + 1);  // refused while busy
        const uint64_t since = scene_.cycle;
        co_await scheduler_.until([this, since] {
            if (scene_.cycle - since > 400'000) throw Violation("a command is not reported");
            return interrupt;
        });
        uint32_t value = 0;
        co_await read(frame() + "CMD.STATUS", value);
        co_await read(frame() + "CMD.OFFENDER", value);
        co_await write(frame() + "IRQ_STATUS", 1);
        if (c.code == kSeal) scene_.reserved = {};
    }
    // Before SEAL of a page that the normal world still uses, nothing secret may be on its way there.
    Task claim(const Command& c) {
        scene_.reserved = {c.first, c.count};
        co_await scheduler_.until([this] {
            return writes_.offered < 0 || !scene_.is_reserved(writes_[writes_.offered].record.address / kPage);
        });
    }
    // What is neither a lending nor a return.
    Task chore() {
        uint32_t value = 0;
        if (secure_) {
            if (!locked && random_.one_in(25)) {
                locked = true;
                co_await write("FLEX_SECURE.CONTROL", 1);
            } else {
                co_await read(random_.one_in(2) ? "FLEX_SECURE.SIZE_OWED" : "FLEX_SECURE.TIMER0.LEFT", value);
            }
        } else if (random_.one_in(3)) {
            co_await write("FLEX_NORMAL.SIZE_REQUEST", random_.below(5));
        } else {
            for (uint32_t left = random_.between(1, 6); left; --left) co_await read("FLEX_NORMAL.FREED_POP", value);
        }
    }
    // Accesses to frames that are closed to whoever makes them.
    Task trespass() {
        static const char* const secrets[] = {"FLEX_SECURE.CMD.COMMAND", "FLEX_SECURE.CONTROL", "FLEX_SECURE.GRACE",
                                              "FLEX_SECURE.MANAGERS", "TZC.GATE_KEEPER", "TZC.ACTION",
                                              "TZC.REGION0.ID_ACCESS", "TZC.INT_CLEAR"};
        static const char* const managed[] = {"FLEX_NORMAL.CMD.COMMAND", "FLEX_NORMAL.SIZE_REQUEST",
                                              "FLEX_NORMAL.FREED_POP", "FLEX_NORMAL.IRQ_ENABLE"};
        Access access{.data = random_.below(8), .write = random_.one_in(2), .secure = secure_};
        const char* name = secure_ ? managed[random_.below(4)] : secrets[random_.below(8)];
        access.nsaid = nsaid_;
        if (!secure_ && managers != 0xFFFF && random_.one_in(2)) {  // by a device that is no manager
            do access.nsaid = random_.below(16);
            while (managers >> access.nsaid & 1);
            name = managed[random_.below(4)];
        }
        access.address = at(name);
        co_await perform(access);
    }
    // A doorbell without its byte starts nothing.
    Task partial() {
        Access access{.address = at(frame() + "CMD.COMMAND"), .data = random_.between(1, 6), .strobes = 14,
                      .nsaid = nsaid_, .write = true, .secure = secure_};
        co_await perform(access);
    }
    Task query() {
        uint32_t value = 0;
        co_await write(frame() + "QUERY_PAGE", static_cast<uint32_t>(scene_.window) + random_.below(scene_.pages + 4) - 2);
        co_await read(frame() + "QUERY_STATE", value);
    }

    Command any() {
        const uint32_t first = static_cast<uint32_t>(scene_.window) + random_.below(scene_.pages + 4) - 2;
        const uint32_t code = random_.pick({0, 1, 2, 3, 4, 5, 7, 9, 15});
        return {code, first, random_.pick({0, 1, 2, 3, scene_.pages, 0x10000, ~0u, random_.between(1, scene_.pages)})};
    }
    Command likely() {
        if (!secure_) {
            if (std::exchange(fresh_, false) && random_.one_in(3))  // large ranges need large neighbourhoods
                return {kDelegate, static_cast<uint32_t>(scene_.window), scene_.pages};
            if (random_.percent(10)) return range(kCancel, kDelegated, kDelegated);
            return random_.percent(45) ? range(kRecall, kFlex, kFlex) : range(kDelegate, kNormal, kNormal);
        }
        if (seals_left && random_.one_in(60)) {
            --seals_left;
            return range(kSeal, kFlex, random_.one_in(2) ? kNormal : kFlex);
        }
        if (locked && random_.one_in(200)) return range(kSeal, kFlex, kFlex);
        const uint32_t what = random_.weighted({60, 25, 15});
        return what == 0 ? range(kAccept, kDelegated, kDelegated)
                         : what == 1 ? range(kRelease, kRecalling, kFlex) : range(kRelease, kFlex, kRecalling);
    }
    // Pages in one of two states from a page on that is in the second; any page if there is none.
    Command range(uint32_t code, State other, State wanted) {
        uint32_t page = 0;
        for (int attempts = 0; attempts < 6; ++attempts) {
            page = random_.percent(70) && !scene_.hot.empty()
                       ? scene_.hot[random_.below(static_cast<uint32_t>(scene_.hot.size()))]
                       : random_.below(scene_.pages);
            if (scene_.hint(page) == wanted) break;
        }
        if (random_.percent(85))
            for (uint32_t n = 0; n < scene_.pages && scene_.hint(page) != wanted; ++n) page = (page + 1) % scene_.pages;
        const uint32_t limit = random_.pick({1, 1, 2, 4, 12, random_.between(1, scene_.pages), scene_.pages});
        uint32_t count = 1;
        while (count < limit && page + count < scene_.pages &&
               (scene_.hint(page + count) == wanted || scene_.hint(page + count) == other))
            ++count;
        if (random_.one_in(25)) ++count;
        if (code == kSeal) count = std::min(count, 2u);
        return {code, static_cast<uint32_t>(scene_.window) + page, count};
    }

    Direction& writes_;
    uint32_t pace_ = 50;
    bool fresh_ = true;  // no command was given in this episode
};

}  // namespace soak
