// AXI4-Lite master of the simulation: accesses of all software, one at a time, each logged.
#pragma once

#include <cstdint>
#include <deque>

#include "scene.h"

namespace soak {

struct Access {
    uint32_t address = 0, data = 0, strobes = 15, nsaid = 0, response = 0;
    bool write = false, secure = false, done = false;
};

class RegisterPort {
  public:
    explicit RegisterPort(Scene& scene, uint64_t seed) : scene_(scene), random_(seed) {}

    void post(Access* access) { queue_.push_back(access); }
    void abort() {
        queue_.clear();
        started_ = address_ = data_ = false;
    }

    // Start of a cycle.
    void drive() {
        if (!started_ && !queue_.empty()) {
            started_ = true;
            address_ = true;
            data_ = queue_.front()->write;
            taken_ = 0;
            since_ = scene_.cycle;
        }
        if (queue_.empty()) started_ = false;
        ready = random_.percent(75);
    }
    bool ready = false;  // BREADY and RREADY
    bool aw_valid() const { return started_ && address_ && now().write; }
    bool w_valid() const { return started_ && data_; }
    bool ar_valid() const { return started_ && address_ && !now().write; }
    const Access& now() const { return *queue_.front(); }

    // What of it was taken in this cycle, and the answer if there is one.
    void clock(bool address, bool data, bool answered, uint32_t response, uint32_t value) {
        if (!started_) {
            if (answered) throw Violation("a register access is answered that nobody made");
            return;
        }
        if (address || data) taken_ = scene_.cycle;
        address_ &= !address;
        data_ &= !data;
        if (!answered) {
            if (scene_.cycle - since_ > kPatience) throw Violation("a register access is not answered");
            return;
        }
        if (address_ || data_) throw Violation("a register access is answered before it is complete");
        Access& a = *queue_.front();
        a.response = response;
        if (!a.write) a.data = value;
        // Direction, world, NSAID, response, strobes.
        const uint32_t about = a.write | a.secure << 1 | a.nsaid << 4 | response << 8 | a.strobes << 12;
        scene_.log.add(Kind::kAccess, taken_, a.address, scene_.cycle, a.data, about);
        a.done = true;
        queue_.pop_front();
        started_ = false;
    }

  private:
    static constexpr uint64_t kPatience = 1000;
    Scene& scene_;
    Random random_;
    std::deque<Access*> queue_;
    bool started_ = false, address_ = false, data_ = false;
    uint64_t taken_ = 0, since_ = 0;
};

}  // namespace soak
