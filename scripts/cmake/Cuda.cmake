# The CUDA half without CMake's CUDA language, which would want a whole toolkit: nvcc compiles each
# kernels/<name>/<name>.cu by a custom command, and the headers and libraries are those beside LibTorch.
# Sets LEHR_CUDA_ON, LEHR_NVCC, LEHR_CUDA_INCLUDE_DIRS, LEHR_CUDART. Needs LibTorch.cmake first.
set(LEHR_CUDA_TARGETS "sm_80 sm_90 compute_90")  # cubins, and PTX for what comes after
set(LEHR_CUDA_CODE
  --generate-code=arch=compute_80,code=sm_80
  --generate-code=arch=compute_90,code=sm_90
  --generate-code=arch=compute_90,code=compute_90)

get_filename_component(site ${LEHR_TORCH_DIR} DIRECTORY)

# CUDA's headers as LibTorch was built with: beside a wheel, else the toolkit's
set(LEHR_CUDA_INCLUDE_DIRS)
file(GLOB beside_wheel ${site}/nvidia/cu*/include ${site}/nvidia/cuda_runtime/include)
foreach(dir IN LISTS beside_wheel ITEMS /usr/local/cuda/include)
  if(EXISTS ${dir}/cuda_runtime.h)
    list(APPEND LEHR_CUDA_INCLUDE_DIRS ${dir})
    break()
  endif()
endforeach()
set(LEHR_CUDA_VERSION)
if(LEHR_CUDA_INCLUDE_DIRS)
  file(STRINGS ${LEHR_CUDA_INCLUDE_DIRS}/cuda_runtime_api.h line REGEX "define CUDART_VERSION +[0-9]+")
  string(REGEX MATCH "[0-9]+$" number "${line}")
  math(EXPR major "${number} / 1000")
  math(EXPR minor "${number} % 1000 / 10")
  set(LEHR_CUDA_VERSION ${major}.${minor})
endif()

# the first nvcc of the same major version: on PATH, in its usual place, from packages beside the wheel
set(LEHR_NVCC "" CACHE FILEPATH "nvcc to use; empty: search PATH, /usr/local/cuda, and beside LibTorch")
set(nvcc ${LEHR_NVCC})
set(nvcc_problem "no nvcc on PATH, in /usr/local/cuda/bin or beside LibTorch")
if(NOT nvcc AND LEHR_CUDA_VERSION)
  find_program(on_path nvcc NO_CACHE)
  file(GLOB beside_wheel ${site}/nvidia/cu*/bin/nvcc)
  foreach(candidate IN ITEMS ${on_path} /usr/local/cuda/bin/nvcc ${beside_wheel})
    if(NOT nvcc AND EXISTS ${candidate})
      execute_process(COMMAND ${candidate} --version OUTPUT_VARIABLE text ERROR_QUIET)
      string(REGEX MATCH "release ([0-9]+)\\.([0-9]+)" found "${text}")
      if("${CMAKE_MATCH_1}" STREQUAL "${major}")
        set(nvcc ${candidate})
      elseif(found)
        set(nvcc_problem "${candidate} is ${found}, LibTorch has CUDA ${LEHR_CUDA_VERSION}")
      else()
        set(nvcc_problem "${candidate} does not run")
      endif()
    endif()
  endforeach()
endif()
# the compiler's own headers (crt/) come with nvcc, not with the wheel; nvcc may be a wrapper elsewhere
get_filename_component(nvcc_folder "${nvcc}" REALPATH)
get_filename_component(nvcc_folder "${nvcc_folder}" DIRECTORY)
foreach(dir IN ITEMS ${LEHR_CUDA_INCLUDE_DIRS} ${nvcc_folder}/../include /usr/local/cuda/include)
  if(EXISTS ${dir}/crt/host_config.h)
    get_filename_component(dir ${dir} ABSOLUTE)
    list(APPEND LEHR_CUDA_INCLUDE_DIRS ${dir})
    list(REMOVE_DUPLICATES LEHR_CUDA_INCLUDE_DIRS)
    break()
  endif()
endforeach()
find_library(LEHR_CUDART NAMES libcudart.so.${major} libcudart.so PATHS ${LEHR_NVIDIA_LIB_DIRS}
  ${LEHR_TORCH_DIR}/lib /usr/local/cuda/lib64 NO_DEFAULT_PATH)

set(LEHR_CUDA_ON OFF)
set(problem)
if(LEHR_CUDA STREQUAL "OFF")
  set(problem "LEHR_CUDA=OFF")
elseif(NOT LEHR_TORCH_CUDA)
  set(problem "this LibTorch has no libtorch_cuda.so")
elseif(NOT LEHR_CUDA_VERSION)
  set(problem "no cuda_runtime.h beside LibTorch or in /usr/local/cuda/include")
elseif(NOT LEHR_CUDART)
  set(problem "no libcudart.so.${major} beside LibTorch")
elseif(NOT nvcc)
  set(problem "${nvcc_problem}; scripts/setup fetches one where there is none, or install scripts/requirements/nvcc.txt beside LibTorch")
else()
  set(LEHR_CUDA_ON ON)
endif()
if(LEHR_CUDA_ON)
  set(LEHR_NVCC ${nvcc})
  message(STATUS "CUDA ${LEHR_CUDA_VERSION}: ${LEHR_NVCC} for ${LEHR_CUDA_TARGETS}")
elseif(LEHR_CUDA STREQUAL "ON")
  message(FATAL_ERROR "LEHR_CUDA=ON, but ${problem}.")
else()
  message(STATUS "The CUDA half is left out: ${problem}")
endif()

# lehr_nvcc(<output variable> <source.cu>): an object of `source` for all of LEHR_CUDA_TARGETS
function(lehr_nvcc out source)
  file(RELATIVE_PATH relative ${CMAKE_SOURCE_DIR} ${source})
  set(object ${CMAKE_BINARY_DIR}/cuda/${relative}.o)
  get_filename_component(folder ${object} DIRECTORY)
  file(MAKE_DIRECTORY ${folder})
  list(TRANSFORM LEHR_CUDA_INCLUDE_DIRS PREPEND -I OUTPUT_VARIABLE includes)
  add_custom_command(OUTPUT ${object} DEPENDS ${source} DEPFILE ${object}.d
    COMMAND ${LEHR_NVCC} -ccbin ${CMAKE_CXX_COMPILER} -std=c++17 -O3 -lineinfo ${LEHR_CUDA_CODE}
      -DLEHR_CUDA -DNDEBUG -I${CMAKE_SOURCE_DIR} ${includes}
      -Werror all-warnings -Xcompiler -fPIC,-Wall,-Wextra
      -MD -MF ${object}.d -MT ${object} -c -o ${object} ${source}
    COMMENT "nvcc ${relative}" VERBATIM)
  set(${out} ${object} PARENT_SCOPE)
endfunction()

# cuBLASLt as LibTorch was built with, for the kernels that are a launcher over it
find_path(LEHR_CUBLASLT_INCLUDE cublasLt.h PATHS ${LEHR_CUDA_INCLUDE_DIRS} ${site}/nvidia/cublas/include
  NO_DEFAULT_PATH)
find_library(LEHR_CUBLASLT NAMES libcublasLt.so.${major} PATHS ${LEHR_NVIDIA_LIB_DIRS} ${LEHR_TORCH_DIR}/lib
  /usr/local/cuda/lib64 NO_DEFAULT_PATH)

# add_kernel(<name>): kernels/<name>/ joins the rooms `kernels_raw` and `kernels` and, where it has a
# .cu file or a launcher over a library of CUDA (_cuda.cpp), the CUDA half
function(add_kernel name)
  set(base ${CMAKE_SOURCE_DIR}/kernels/${name}/${name})
  target_sources(lehr_kernels PRIVATE ${base}_op.cpp)
  foreach(source ${base}_cpu.cpp ${base}_cpu_simd.cpp)
    if(EXISTS ${source})
      target_sources(lehr_kernels_raw PRIVATE ${source})
    endif()
  endforeach()
  if(LEHR_CUDA_ON AND EXISTS ${base}.cu)
    set_property(GLOBAL APPEND PROPERTY LEHR_CUDA_KERNELS ${base}.cu)
    set_property(GLOBAL APPEND PROPERTY LEHR_CUDA_OPS ${base}_op_cuda.cpp)
  endif()
  # without cuBLASLt's headers the op stays ATen's on a GPU, too
  if(LEHR_CUDA_ON AND LEHR_CUBLASLT AND LEHR_CUBLASLT_INCLUDE AND EXISTS ${base}_cuda.cpp)
    set_property(GLOBAL APPEND PROPERTY LEHR_CUDA_OPS ${base}_cuda.cpp ${base}_op_cuda.cpp)
  endif()
endfunction()
