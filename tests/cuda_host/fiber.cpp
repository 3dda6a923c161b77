// Fibers on Boost.Context. A fiber's function never returns: it loops over its body, so that a
// stack is prepared once and used for every block.
#include "tests/cuda_host/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <boost/context/detail/fcontext.hpp>
#include <cstdio>
#include <cstdlib>
#include <utility>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace cuda_host {
namespace {

using boost::context::detail::fcontext_t;
using boost::context::detail::jump_fcontext;
using boost::context::detail::make_fcontext;
using boost::context::detail::transfer_t;

constexpr int kSlots = 1024;
constexpr size_t kGuardBytes = 4096;
constexpr size_t kSlotBytes = kStackBytes + kGuardBytes;

char* stacks() {
  static char* base = [] {
    void* map = mmap(nullptr, kSlots * kSlotBytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) {
      std::perror("cuda_host: stacks for 1024 fibers");
      std::abort();
    }
    for (int i = 0; i < kSlots; ++i)
      mprotect(static_cast<char*>(map) + i * kSlotBytes, kGuardBytes, PROT_NONE);
    return static_cast<char*>(map);
  }();
  return base;
}

void start_switch([[maybe_unused]] void** fake, [[maybe_unused]] const void* bottom,
                  [[maybe_unused]] size_t size) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(fake, bottom, size);
#endif
}
void finish_switch([[maybe_unused]] void* fake, [[maybe_unused]] const void** bottom,
                   [[maybe_unused]] size_t* size) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fake, bottom, size);
#endif
}

}  // namespace

struct FiberEntry {
  static void run(transfer_t from) {
    auto* fiber = static_cast<Fiber*>(from.data);
    finish_switch(nullptr, &fiber->resumer_bottom_, &fiber->resumer_size_);
    fiber->resumer_ = from.fctx;
    for (;;) {
      fiber->body_();
      fiber->leave();
    }
  }
};

Fiber::Fiber(int slot, std::function<void()> body)
    : stack_(stacks() + slot * kSlotBytes + kGuardBytes), body_(std::move(body)) {
  abandon();
}

void Fiber::resume() {
  start_switch(&resumer_fake_stack_, stack_, kStackBytes);
  const transfer_t back = jump_fcontext(context_, this);
  finish_switch(resumer_fake_stack_, nullptr, nullptr);
  context_ = back.fctx;
}

void Fiber::leave() {
  start_switch(&fake_stack_, resumer_bottom_, resumer_size_);
  const transfer_t again = jump_fcontext(resumer_, nullptr);
  finish_switch(fake_stack_, &resumer_bottom_, &resumer_size_);
  resumer_ = again.fctx;
}

void Fiber::abandon() {
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(stack_, kStackBytes);  // the frames that were left behind
#endif
  context_ = make_fcontext(stack_ + kStackBytes, kStackBytes, &FiberEntry::run);
}

bool on_fiber_stack(const void* address) {
  const auto* byte = static_cast<const char*>(address);
  return byte >= stacks() && byte < stacks() + kSlots * kSlotBytes;
}

}  // namespace cuda_host
