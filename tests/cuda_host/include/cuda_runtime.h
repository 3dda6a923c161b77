// Found before CUDA's own header of this name: the language of a .cu file for a host compiler. The
// real header is included for its types, then what only nvcc has is added: thread indices,
// launches, barriers, warps, atomics, arithmetic intrinsics. kernels/ files need no change.
#pragma once

#define __host__
#define __device__
#define __global__
#define __constant__ static
// race: thread_local puts every __shared__ array into the executable's TLS block, whose bounds are
// known, so that the checker can tell shared memory from global memory
#ifdef CUDA_HOST_RACE
#define __shared__ static thread_local
#else
#define __shared__ static
#endif

// the real template erases the kernel's parameter types; ours (launch.h) keeps them
#define cudaLaunchKernelEx cudaLaunchKernelEx_of_cuda
#define cudaFuncSetAttribute cudaFuncSetAttribute_of_cuda
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#include_next <cuda_runtime.h>
#pragma GCC diagnostic pop
#undef cudaLaunchKernelEx
#undef cudaFuncSetAttribute

#ifndef __launch_bounds__
#define __launch_bounds__(...)
#endif
#define LEHR_CUDA_HOST 1

#include "tests/cuda_host/device.h"
#include "tests/cuda_host/launch.h"
