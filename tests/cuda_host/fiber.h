// A function that can be left and come back to: Boost.Context's switch (5 ns; ucontext, which makes
// a system call, takes 240) with the annotations that AddressSanitizer needs to follow the stacks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace cuda_host {

// Stacks of 64 KiB with a guard page below each, in one mapping.
constexpr size_t kStackBytes = 64 << 10;

class Fiber {
 public:
  // `slot` picks the stack (0 .. 1023); one fiber per slot at a time.
  Fiber(int slot, std::function<void()> body);
  // Runs the body from where it left off until it calls leave() or returns; then it starts anew.
  void resume();
  // Called by the running fiber: back to resume()'s caller.
  void leave();
  // Forgets where the body was; what its frames own is lost. The next resume() starts anew.
  void abandon();

 private:
  friend struct FiberEntry;
  char* stack_;  // lowest usable byte
  std::function<void()> body_;
  void* context_ = nullptr;
  void* resumer_ = nullptr;
  // AddressSanitizer's notes on both stacks
  void *fake_stack_ = nullptr, *resumer_fake_stack_ = nullptr;
  const void* resumer_bottom_ = nullptr;
  size_t resumer_size_ = 0;
};

// True for addresses on any fiber's stack.
bool on_fiber_stack(const void* address);

}  // namespace cuda_host
