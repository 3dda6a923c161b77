# A room is an OBJECT library whose link interface carries the rooms that it may include; all rooms
# together make liblehr.so. Every source may include "engine/..." style paths; a room without LibTorch
# has no LibTorch include path, so the wrong include does not compile.
find_package(PkgConfig REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(Threads REQUIRED)
find_package(ZLIB REQUIRED)
find_package(OpenSSL REQUIRED COMPONENTS Crypto)
pkg_check_modules(yaml REQUIRED IMPORTED_TARGET yaml-0.1)

# one precompiled header for everything that sees LibTorch
file(WRITE ${CMAKE_BINARY_DIR}/pch.cpp.in "// carries the precompiled header of every room that sees LibTorch\n")
configure_file(${CMAKE_BINARY_DIR}/pch.cpp.in ${CMAKE_BINARY_DIR}/pch.cpp COPYONLY)
add_library(lehr_pch OBJECT ${CMAKE_BINARY_DIR}/pch.cpp)
target_link_libraries(lehr_pch PRIVATE lehr::torch fmt::fmt nlohmann_json::nlohmann_json)
target_include_directories(lehr_pch PRIVATE ${CMAKE_SOURCE_DIR})
target_precompile_headers(lehr_pch PRIVATE <algorithm> <cmath> <functional> <map> <memory> <optional>
  <string> <vector> <thread> <fmt/format.h> <nlohmann/json.hpp> <ATen/ATen.h>)

# lehr_room(NAME name SOURCES files... [USES rooms...] [LIBS libraries...] [TORCH])
# TORCH: the room may include LibTorch, and uses the precompiled header.
function(lehr_room)
  cmake_parse_arguments(R "TORCH;NO_PCH" "NAME" "SOURCES;USES;LIBS" ${ARGN})
  set(target lehr_${R_NAME})
  add_library(${target} OBJECT ${R_SOURCES})
  target_include_directories(${target} PUBLIC ${CMAKE_SOURCE_DIR})
  foreach(used IN LISTS R_USES)
    target_link_libraries(${target} PUBLIC lehr_${used})
  endforeach()
  target_link_libraries(${target} PUBLIC ${R_LIBS} fmt::fmt Threads::Threads)
  if(R_TORCH)
    target_link_libraries(${target} PUBLIC lehr::torch)
    if(NOT R_NO_PCH)
      target_link_libraries(${target} PRIVATE nlohmann_json::nlohmann_json)
      target_precompile_headers(${target} REUSE_FROM lehr_pch)
    endif()
  endif()
  set_property(GLOBAL APPEND PROPERTY LEHR_ROOMS ${target})
endfunction()

# liblehr.so from every room declared so far
function(lehr_library)
  get_property(rooms GLOBAL PROPERTY LEHR_ROOMS)
  set(objects)
  foreach(room IN LISTS rooms)
    list(APPEND objects $<TARGET_OBJECTS:${room}>)
  endforeach()
  add_library(lehr_shared SHARED ${objects})
  set_target_properties(lehr_shared PROPERTIES OUTPUT_NAME lehr LINKER_LANGUAGE CXX
    LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})
  foreach(room IN LISTS rooms)
    get_target_property(libs ${room} INTERFACE_LINK_LIBRARIES)
    foreach(lib IN LISTS libs)
      if(NOT lib MATCHES "^lehr_" OR lib MATCHES "^lehr_torch")
        target_link_libraries(lehr_shared PUBLIC ${lib})
      endif()
    endforeach()
  endforeach()
  target_include_directories(lehr_shared PUBLIC ${CMAKE_SOURCE_DIR})
  lehr_rpath(lehr_shared)
endfunction()

# RUNPATH to LibTorch and NVIDIA's libraries; old-style tags so that it reaches indirect needs
function(lehr_rpath target)
  set_target_properties(${target} PROPERTIES
    BUILD_RPATH "${CMAKE_BINARY_DIR};${LEHR_TORCH_RPATH}"
    INSTALL_RPATH "$ORIGIN;$ORIGIN/../lib;${LEHR_TORCH_RPATH}")
  target_link_options(${target} PRIVATE -Wl,--disable-new-dtags)
endfunction()
