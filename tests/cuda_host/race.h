// The race checker of the `race` build: every access of a kernel to shared or global memory, byte
// by byte, against the last ones that nothing orders before it. Exact for one schedule: what orders
// two threads is __syncthreads, and __syncwarp for the lanes of its mask; shuffles, votes, fences
// and atomics order nothing. In the `asan` build all of this is empty.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tests/cuda_host/block.h"

namespace cuda_host::race {

#ifdef CUDA_HOST_RACE
// by block.cpp, as a grid proceeds
void begin_grid();
void begin_block(int64_t block, int threads);
void begin_thread(int thread);  // this thread runs now
void end_block();               // no thread runs
void block_barrier();
void warp_barrier(int warp, uint32_t mask);
void set_dynamic_shared(const void* begin, size_t bytes);
// by device.h
void atomic(const void* address, size_t bytes, Site site);
#else
inline void begin_grid() {}
inline void begin_block(int64_t, int) {}
inline void begin_thread(int) {}
inline void end_block() {}
inline void block_barrier() {}
inline void warp_barrier(int, uint32_t) {}
inline void set_dynamic_shared(const void*, size_t) {}
inline void atomic(const void*, size_t, Site) {}
#endif

}  // namespace cuda_host::race
