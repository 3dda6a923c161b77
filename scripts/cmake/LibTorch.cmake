# LibTorch as our own imported targets, straight from a wheel or the official archive. Its own
# TorchConfig.cmake injects architectures and standards and always links CUDA, and with -isystem its
# bundled fmt would shadow Debian's: hence -idirafter and no find_package.
# Sets LEHR_TORCH_DIR, LEHR_TORCH_VERSION, LEHR_TORCH_CUDA (libtorch_cuda.so is there).
# Targets: lehr::torch (CPU side), lehr::torch_cuda.

function(lehr_find_torch out)
  set(candidates)
  foreach(prefix IN LISTS CMAKE_PREFIX_PATH)
    list(APPEND candidates ${prefix} ${prefix}/torch)
  endforeach()
  file(GLOB wheels ${CMAKE_SOURCE_DIR}/.deps/venv/lib/python3*/site-packages/torch)
  list(APPEND candidates ${wheels})
  foreach(candidate IN LISTS candidates)
    if(EXISTS ${candidate}/lib/libtorch_cpu.so AND EXISTS ${candidate}/include/ATen/core/Tensor.h)
      get_filename_component(candidate ${candidate} REALPATH)
      set(${out} ${candidate} PARENT_SCOPE)
      return()
    endif()
  endforeach()
  message(FATAL_ERROR "LibTorch was not found. Run scripts/setup, or pass -DCMAKE_PREFIX_PATH=DIR, "
    "where DIR holds lib/libtorch_cpu.so (a wheel's torch folder or the official archive).")
endfunction()

lehr_find_torch(LEHR_TORCH_DIR)

set(version_header ${LEHR_TORCH_DIR}/include/torch/headeronly/version.h)
if(NOT EXISTS ${version_header})
  set(version_header ${LEHR_TORCH_DIR}/include/torch/csrc/api/include/torch/version.h)
endif()
file(STRINGS ${version_header} version_lines REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
string(REGEX MATCHALL "[0-9]+" version_numbers "${version_lines}")
string(REPLACE ";" "." LEHR_TORCH_VERSION "${version_numbers}")
if(LEHR_TORCH_VERSION VERSION_LESS 2.11)
  message(FATAL_ERROR "LibTorch ${LEHR_TORCH_VERSION} in ${LEHR_TORCH_DIR}: Lehr needs 2.11 or newer.")
elseif(NOT LEHR_TORCH_VERSION MATCHES "^2\\.11\\.")
  message(WARNING "LibTorch ${LEHR_TORCH_VERSION} is not the pinned 2.11.0: bits may differ.")
endif()

# NVIDIA's libraries lie beside a wheel in nvidia/<package>/lib
get_filename_component(site ${LEHR_TORCH_DIR} DIRECTORY)
file(GLOB LEHR_NVIDIA_LIB_DIRS ${site}/nvidia/*/lib)
set(LEHR_TORCH_RPATH ${LEHR_TORCH_DIR}/lib ${LEHR_NVIDIA_LIB_DIRS})

add_library(lehr_torch INTERFACE)
add_library(lehr::torch ALIAS lehr_torch)
target_compile_options(lehr_torch INTERFACE
  "SHELL:-idirafter ${LEHR_TORCH_DIR}/include"
  "SHELL:-idirafter ${LEHR_TORCH_DIR}/include/torch/csrc/api/include")
target_compile_definitions(lehr_torch INTERFACE USE_DISTRIBUTED USE_C10D_GLOO)
target_link_libraries(lehr_torch INTERFACE
  -Wl,--no-as-needed ${LEHR_TORCH_DIR}/lib/libtorch_cpu.so ${LEHR_TORCH_DIR}/lib/libc10.so
  -Wl,--as-needed)
foreach(dir IN LISTS LEHR_TORCH_RPATH)
  target_link_options(lehr_torch INTERFACE -Wl,-rpath-link,${dir})
endforeach()

set(LEHR_TORCH_CUDA OFF)
if(EXISTS ${LEHR_TORCH_DIR}/lib/libtorch_cuda.so)
  set(LEHR_TORCH_CUDA ON)
  add_library(lehr_torch_cuda INTERFACE)
  add_library(lehr::torch_cuda ALIAS lehr_torch_cuda)
  target_link_libraries(lehr_torch_cuda INTERFACE lehr_torch
    -Wl,--no-as-needed ${LEHR_TORCH_DIR}/lib/libtorch_cuda.so ${LEHR_TORCH_DIR}/lib/libc10_cuda.so
    -Wl,--as-needed)
endif()
message(STATUS "LibTorch ${LEHR_TORCH_VERSION} in ${LEHR_TORCH_DIR} (CUDA: ${LEHR_TORCH_CUDA})")
