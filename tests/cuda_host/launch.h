// Launching a host-compiled kernel with its own parameter types, as nvcc would convert them.
#pragma once

#include <tuple>
#include <utility>

#include "tests/cuda_host/block.h"

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  std::tuple<Parameters...> parameters(std::forward<Arguments>(arguments)...);
  auto body = [&] { std::apply(kernel, parameters); };
  return cuda_host::run_grid(
      *config, reinterpret_cast<const void*>(kernel),
      [](void* argument) { (*static_cast<decltype(body)*>(argument))(); }, &body);
}

template <class... Parameters>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Parameters...), cudaFuncAttribute attribute,
                                 int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  return cuda_host::set_dynamic_shared_limit(reinterpret_cast<const void*>(kernel), value);
}
