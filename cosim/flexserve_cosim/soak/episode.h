// The course of an episode: reset, boot, work with pauses in which everything is read, and the next reset.
#pragma once

#include "software.h"

namespace soak {

struct Course {
    uint64_t transactions = 250'000;  // of the whole run
    uint32_t episode = 40'000;        // between two resets, about
    uint32_t stretch = 4'000;         // between two quiet points, about
    uint32_t window = 128;            // pages at most
};

class Director : public Program {
  public:
    Director(Scene& scene, RegisterPort& port, const Map& map, uint64_t seed, Course course, Manager& normal,
             Manager& secure, std::function<void(bool)> reset, std::function<bool()> idle)
        : Program(scene, port, map, true, seed), course_(course), normal_(normal), secure_(secure),
          reset_(std::move(reset)), idle_(std::move(idle)) {}

    bool finished = false;
    bool resetting = false;

    void start() { begin(life()); }

  private:
    Task life() {
        bool cold = true;
        while (scene_.log.count < course_.transactions) {
            co_await reset(cold);
            bool ready = false;
            co_await boot(cold, ready);
            if (ready) co_await work();
            cold = random_.one_in(2);
        }
        finished = true;
    }
    // A warm reset keeps memory, secrets and all, so the window stays where they are.
    Task reset(bool cold) {
        reset_(cold);
        if (cold) {
            const uint32_t group = scene_.filter.group, groups = course_.window / group;
            scene_.window = scene_.memory + group * random_.between(1, 2);
            // With a table in memory more words than are cached.
            size_ = group * random_.between(scene_.filter.table_pages ? groups / 2 + 1 : 1, groups);
            // Behind the largest window, in memory that masters go for too.
            if (scene_.filter.table_pages)
                scene_.table = scene_.memory + course_.window + 2 * group + random_.below(2 * group);
        }
        scene_.pages = 0;
        scene_.hints.assign(size_, kUnknown);
        co_await scheduler_.until([this] { return !resetting; });
    }
    Task boot(bool cold, bool& ready) {
        scene_.pages = size_;
        scene_.hot.clear();
        const bool unsound = cold && random_.one_in(scene_.table ? 4 : 24);
        const uint32_t skew = !unsound ? 0 : scene_.table ? random_.pick({0, 1, 2, 2}) : random_.pick({0, 1});
        uint32_t forgotten = 0;
        co_await read("FLEX_SECURE.QUERY_PAGE", forgotten);
        scene_.traffic = random_.one_in(2);  // the gate is closed: nothing may be accepted
        co_await regions();
        co_await write("TZC.ACTION", random_.below(4));
        co_await write("FLEX_SECURE.WINDOW_BASE", static_cast<uint32_t>(scene_.window) + (skew == 1 ? 1 : 0));
        co_await write("FLEX_SECURE.WINDOW_PAGES", unsound && !skew ? scene_.filter.capacity * 2 : size_);
        if (scene_.table)
            co_await write("FLEX_SECURE.TABLE_BASE", static_cast<uint32_t>(skew == 2 ? scene_.window + random_.below(size_) : scene_.table));
        const Filter& filter = scene_.filter;
        grace_ = random_.one_in(6) ? random_.pick({0, filter.grace_min - 1, filter.grace_max + 1})
                                   : random_.between(filter.grace_min, filter.grace_min * 12);
        co_await write("FLEX_SECURE.GRACE", grace_);
        const uint32_t manager = random_.below(16);
        normal_.managers = random_.one_in(4) ? 0xFFFF : 1u << manager | random_.below(0x10000);
        normal_.managers |= 1u << manager;
        co_await write("FLEX_SECURE.MANAGERS", normal_.managers);
        const bool early = random_.one_in(2);
        if (early) co_await write("TZC.GATE_KEEPER", 1);
        co_await write("FLEX_SECURE.CONTROL", 2);
        const uint64_t limit = scene_.cycle + (unsound ? 3000 : 60'000 + uint64_t{size_} * 8000);
        uint32_t control = 0;
        while (!(control & 4)) {
            if (scene_.cycle > limit) {
                if (unsound) co_return;
                throw Violation("the window does not become ready");
            }
            co_await sleep(100);
            co_await read("FLEX_SECURE.CONTROL", control);
        }
        if (unsound) throw Violation("an unsound window becomes ready");
        if (!early) co_await write("TZC.GATE_KEEPER", 1);
        scene_.traffic = true;
        ready = true;
        const uint32_t pace = random_.pick({10, 100, 600});
        normal_.seals_left = 0;
        secure_.seals_left = random_.below(4);
        normal_.start(manager, pace);
        secure_.start(random_.below(16), pace);
    }
    // Region 0 for everything, up to three more, which now and then overlap.
    Task regions() {
        static const uint32_t worlds[] = {0xC0000001, 0xC0000001, 0x40000001, 0x80000001, 0x00000001};
        static const uint32_t names[] = {0xFFFFFFFF, 0xFFFFFFFF, 0x000F000F, 0x0003000F, 0x000F0003, 0x00000000};
        const uint32_t used = random_.below(4);
        for (uint32_t n = 0; n <= 3; ++n) {
            const std::string region = "TZC.REGION" + std::to_string(n) + ".";
            const uint32_t first = random_.below(scene_.memory_pages), count = random_.between(1, 40);
            if (n) co_await write(region + "BASE_LOW", static_cast<uint32_t>((scene_.memory + first) * kPage));
            if (n) co_await write(region + "TOP_LOW", static_cast<uint32_t>((scene_.memory + first + count) * kPage - 1));
            co_await write(region + "ID_ACCESS", n ? names[random_.below(6)] : names[random_.below(3)]);
            co_await write(region + "ATTRIBUTES", n > used ? 0 : n ? worlds[random_.below(5)] : worlds[random_.below(2)]);
        }
    }
    Task work() {
        const uint64_t end = std::min(course_.transactions, scene_.log.count + random_.between(course_.episode / 2, course_.episode * 3 / 2));
        while (scene_.log.count < end) {
            heat();
            const uint64_t next = scene_.log.count + random_.between(course_.stretch / 2, course_.stretch * 3 / 2);
            while (scene_.log.count < next) {
                const uint64_t part = scene_.log.count + 300;
                const uint64_t since = scene_.cycle;
                co_await scheduler_.until([this, part, since] {
                    if (scene_.cycle - since > 400'000) throw Violation("traffic stands still");
                    return scene_.log.count >= part;
                });
                if (random_.one_in(3)) heat();
                if (random_.one_in(40)) co_await close();
            }
            // Most resets come in the middle of everything.
            if (scene_.log.count < end || random_.percent(30)) co_await rest();
        }
    }
    void heat() {
        scene_.hot.clear();
        for (uint32_t n = random_.between(2, 8); n; --n) {
            uint32_t page = random_.below(scene_.pages);
            for (int attempts = 0; attempts < 8 && scene_.hint(page) == kSealed; ++attempts) page = random_.below(scene_.pages);
            scene_.hot.push_back(page);
        }
        if (random_.one_in(2)) {  // neighbours, for ranges
            const uint32_t first = scene_.hot[0];
            for (uint32_t n = 1; n < 4 && first + n < scene_.pages; ++n) scene_.hot.push_back(first + n);
        }
    }
    // Close the gate under traffic, change the regions, open it.
    Task close() {
        uint32_t value = 1u << 16;
        co_await write("TZC.GATE_KEEPER", 0);
        while (value >> 16 & 1) co_await read("TZC.GATE_KEEPER", value);
        co_await sleep(random_.below(200));
        if (random_.one_in(2)) {
            co_await regions();
            co_await write("TZC.ACTION", random_.below(4));
        }
        co_await write("TZC.GATE_KEEPER", 1);
    }
    // Let everything come to rest, then read all that can be read.
    Task rest() {
        normal_.pause = secure_.pause = true;
        co_await scheduler_.until([this] { return normal_.paused && secure_.paused; });
        scene_.traffic = false;
        const uint64_t since = scene_.cycle;
        bool busy = true;
        while (busy) {
            if (scene_.cycle - since > 2'000'000) throw Violation("pages on their way back do not arrive");
            uint32_t value = 0, running = 0;
            co_await pop(value);
            // The backlog comes last: a grace period that ends in between moves its pages there.
            for (uint32_t n = 0; n < scene_.filter.timers; ++n) {
                uint32_t pages = 0;
                const std::string timer = "FLEX_SECURE.TIMER" + std::to_string(n);
                co_await read(timer + ".COUNT", pages);
                if (random_.one_in(4)) co_await read(timer + (random_.one_in(2) ? ".FIRST" : ".LEFT"), value);
                running += pages;
            }
            co_await other("FLEX_NORMAL.SCRUB_BACKLOG", value);
            busy = value || running || !idle_();
        }
        co_await sleep(20);
        scene_.log.add(Kind::kQuiet, scene_.cycle);
        co_await look();
        scene_.traffic = true;
        normal_.pause = secure_.pause = false;
        co_await scheduler_.until([this] { return !normal_.paused && !secure_.paused; });
    }
    Task look() {
        static const char* const secure[] = {
            "TZC.INT_STATUS", "TZC.FAIL_ADDRESS_LOW", "TZC.FAIL_CONTROL", "TZC.FAIL_ID", "FLEX_SECURE.VIOLATIONS",
            "FLEX_SECURE.ALARM", "FLEX_SECURE.SIZE_OWED", "FLEX_SECURE.IRQ_STATUS", "FLEX_SECURE.GRACE"};
        static const char* const normal[] = {"FLEX_NORMAL.LENT", "FLEX_NORMAL.SCRUB_BACKLOG", "FLEX_NORMAL.SIZE_REQUEST",
                                             "FLEX_NORMAL.FREED_COUNT", "FLEX_NORMAL.IRQ_STATUS", "FLEX_NORMAL.GRACE",
                                             "FLEX_NORMAL.WINDOW_BASE", "FLEX_NORMAL.WINDOW_PAGES"};
        uint32_t value = 0;
        for (const char* name : secure) co_await read(name, value);
        for (const char* name : normal) co_await other(name, value);
        for (uint32_t n = 0; n < 6; ++n) {
            co_await write("FLEX_SECURE.QUERY_PAGE", static_cast<uint32_t>(scene_.window) + random_.below(scene_.pages + 2) - 1);
            co_await sleep(scene_.filter.line_bytes ? 600 : 4);
            co_await read("FLEX_SECURE.QUERY_STATE", value);
        }
        value = 1u << 31;
        while (value >> 31) co_await pop(value);
        co_await write("FLEX_SECURE.IRQ_STATUS", 31);
        Access clear{.address = at("FLEX_NORMAL.IRQ_STATUS"), .data = 7, .nsaid = normal_.number(), .write = true};
        co_await perform(clear);
        if (random_.one_in(2)) co_await write("TZC.INT_CLEAR", 1);
    }
    Task other(const std::string& name, uint32_t& value) {
        Access access{.address = at(name), .nsaid = normal_.number()};
        co_await perform(access);
        value = access.data;
    }
    Task pop(uint32_t& value) { co_await other("FLEX_NORMAL.FREED_POP", value); }

    Course course_;
    Manager &normal_, &secure_;
    std::function<void(bool)> reset_;
    std::function<bool()> idle_;
    uint32_t size_ = 0, grace_ = 0;
};

}  // namespace soak
