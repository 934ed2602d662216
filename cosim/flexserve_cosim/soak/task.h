// Coroutines: the software of the simulation is written as straight code that waits for cycles to pass.
#pragma once

#include <coroutine>
#include <cstdint>
#include <exception>
#include <functional>
#include <utility>

namespace soak {

class Task {
  public:
    struct promise_type {
        std::coroutine_handle<> parent = std::noop_coroutine();
        std::exception_ptr error;

        Task get_return_object() { return Task(std::coroutine_handle<promise_type>::from_promise(*this)); }
        std::suspend_always initial_suspend() noexcept { return {}; }
        auto final_suspend() noexcept {
            struct Return {
                bool await_ready() noexcept { return false; }
                std::coroutine_handle<> await_suspend(std::coroutine_handle<promise_type> child) noexcept {
                    return child.promise().parent;
                }
                void await_resume() noexcept {}
            };
            return Return();
        }
        void return_void() {}
        void unhandled_exception() { error = std::current_exception(); }
    };

    Task() = default;
    explicit Task(std::coroutine_handle<promise_type> handle) : handle_(handle) {}
    Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, {})) {}
    Task& operator=(Task&& other) noexcept {
        std::swap(handle_, other.handle_);
        return *this;
    }
    ~Task() {
        if (handle_) handle_.destroy();
    }

    void start() { handle_.resume(); }
    void check() const {
        if (handle_ && handle_.done() && handle_.promise().error) std::rethrow_exception(handle_.promise().error);
    }

    // co_await of a task runs it to its end.
    bool await_ready() const { return false; }
    std::coroutine_handle<> await_suspend(std::coroutine_handle<> parent) {
        handle_.promise().parent = parent;
        return handle_;
    }
    void await_resume() const { check(); }

  private:
    std::coroutine_handle<promise_type> handle_;
};

// Wakes the coroutines of one program when what they wait for is true; looked at once per cycle.
class Scheduler {
  public:
    struct Wait {
        Scheduler& scheduler;
        bool await_ready() const { return false; }
        void await_suspend(std::coroutine_handle<> handle) { scheduler.handle_ = handle; }
        void await_resume() const {}
    };

    Wait until(std::function<bool()> condition) {
        condition_ = std::move(condition);
        return Wait{*this};
    }

    // A program does one thing at a time, so there is one coroutine that waits.
    void poll() {
        while (handle_ && condition_()) std::exchange(handle_, {}).resume();
    }
    void clear() { handle_ = {}; }

  private:
    std::function<bool()> condition_;
    std::coroutine_handle<> handle_;
};

}  // namespace soak
