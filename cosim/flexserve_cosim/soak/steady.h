// What AXI asks of whoever offers something.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "records.h"

namespace soak {

// A channel's payload must not change while it is offered.
template <size_t N>
class Steady {
  public:
    explicit Steady(const char* name) : name_(name) {}
    void look(bool valid, bool ready, const std::array<uint64_t, N>& payload) {
        if (held_ && (!valid || payload != before_)) throw Violation(std::string(name_) + " changes while it is offered");
        held_ = valid && !ready;
        if (held_) before_ = payload;
    }
    void forget() { held_ = false; }

  private:
    const char* name_;
    bool held_ = false;
    std::array<uint64_t, N> before_{};
};

}  // namespace soak
