// Kernels with one bug each, and their right twins: what the workbench must and must not report. A
// comment `bug: NAME` in planted.cu marks the line that a report has to name.
#pragma once

#include <cuda_runtime.h>

namespace lehr::kernels {

enum class Planted {
  kNone,
  kMissingBarrier,
  kOffByOne,
  kWrongMask,
  kMisalignedLoad,
  kOverlappingPacks,
  kUninitialisedShared,
  kMissingTrailingBarrier,
  kShuffleAsFence,
  kDivergentBarrier,
  kEarlyExit,
  kTwoBarriers,
  kMissingLanes,
  kDynamicSharedOverrun,
  kStaticSharedOverrun,
  kPlainBesideAtomic,
  kReadsAnotherBlock,
  kReadBeyondEnd,
  kUninitialisedDynamic,
  kSharedByte,
  kUnnamedLane,
};

// Two blocks of `threads` threads on output[2 x threads], for kOffByOne too.
[[nodiscard]] cudaError_t planted_cuda(Planted bug, float* output, int threads);

}  // namespace lehr::kernels
