# Compiler flags of every target: warnings are errors in our code; NDEBUG always, because headers of
# LibTorch's release build assert otherwise.
add_compile_definitions(NDEBUG)
# programs share the precompiled header of the libraries, so they are compiled alike
set(CMAKE_CXX_COMPILE_OPTIONS_PIE -fPIC)
set(CMAKE_CXX_FLAGS_RELEASE "-O2")
set(CMAKE_CXX_FLAGS_DEBUG "-O0 -g1")
add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-Wall> $<$<COMPILE_LANGUAGE:CXX>:-Wextra>
                    $<$<COMPILE_LANGUAGE:CXX>:-Werror>
                    # LibTorch's headers come by -idirafter and are not system headers to gcc
                    $<$<COMPILE_LANGUAGE:CXX>:-Wno-unused-parameter>
                    $<$<COMPILE_LANGUAGE:CXX>:-Wno-missing-field-initializers>
                    $<$<COMPILE_LANGUAGE:CXX>:-Wno-sign-compare>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # false alarms of g++ 12's middle end inside libstdc++ and LibTorch
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict> $<$<COMPILE_LANGUAGE:CXX>:-Wno-maybe-uninitialized>
                      $<$<COMPILE_LANGUAGE:CXX>:-Wno-array-bounds> $<$<COMPILE_LANGUAGE:CXX>:-Wno-stringop-overflow>
                      $<$<COMPILE_LANGUAGE:CXX>:-Wno-stringop-overread> $<$<COMPILE_LANGUAGE:CXX>:-Wno-dangling-pointer>)
endif()
if(LEHR_SANITIZE)
  add_compile_options(-fsanitize=${LEHR_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all
                      -fno-sanitize=vptr
                      # under -fsanitize=thread g++ does not see that TORCH_CHECK(false) throws, and warns of
                      # fences, which it does not follow
                      -Wno-return-type $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-tsan>)
  add_link_options(-fsanitize=${LEHR_SANITIZE})
endif()

find_program(LEHR_CCACHE ccache)
if(LEHR_CCACHE)
  set(ccache_env ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
      CCACHE_NOHASHDIR=1 CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} ${LEHR_CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${ccache_env})
endif()
find_program(LEHR_MOLD mold)
find_program(LEHR_LLD ld.lld)
if(LEHR_MOLD)
  add_link_options(-fuse-ld=mold)
elseif(LEHR_LLD)
  add_link_options(-fuse-ld=lld)
endif()
