// The build stamp as a constant of whoever includes this: liblehr.so and liblehr_cuda.so each
// compile their own, so that comparing them finds halves of two builds. CMake defines the macros
// (LEHR_STAMP_DEFINITIONS).
#pragma once

namespace lehr {

inline constexpr char kBuildStamp[] =
    "lehr " LEHR_VERSION ", LibTorch " LEHR_TORCH_VERSION ", " LEHR_COMPILER ", " LEHR_FLAGS
    ", numerics " LEHR_NUMERICS_VERSION;

}  // namespace lehr
