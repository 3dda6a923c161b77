// A stand-in for an accelerator, for machines without one: LibTorch's spare backend (PrivateUse1)
// over memory that the host may not touch. Ops run on the CPU and give its bits; what it shows is
// where the host reads a device's memory (SIGSEGV), copies, and waits. A library of its own, which
// registers `training.device: standin` when it is loaded.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>

#include "engine/base/device.h"

namespace lehr::standin {

constexpr int kDevices = 4;

// Since the start; ops that run on the device count as nothing.
struct Counts {
  int64_t in = 0, out = 0;  // copies from the host and to it
  int64_t across = 0;       // from another device
  int64_t waits = 0;        // of the host for the device: a copy that is not of pinned memory or
                            // blocks, a value that it asks for, a shape that depends on values
  int64_t allocations = 0;
  Counts operator-(const Counts& b) const {
    return {in - b.in, out - b.out, across - b.across, waits - b.waits,
            allocations - b.allocations};
  }
};

}  // namespace lehr::standin

// The library's entry, to be found by name. A program leaves those of device 0 in the file
// $LEHR_STANDIN_COUNTS-<pid>.
extern "C" void lehr_standin_counts(int device, lehr::standin::Counts* counts);
