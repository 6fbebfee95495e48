# How things are compiled: flags of the build types, ccache, a fast linker, sanitizers.
# What only speeds a build up is used where it is found and never asked for.

# -g1: backtraces with lines, at a quarter of the bytes of -g.
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g1")
set(CMAKE_C_FLAGS_RELWITHDEBINFO "-O2 -g1")
set(CMAKE_CXX_FLAGS_DEBUG "-O0 -g")
set(CMAKE_C_FLAGS_DEBUG "-O0 -g")

# CHECKs stay on in every build type, and so do the standard library's cheap assertions.
add_compile_definitions(_GLIBCXX_ASSERTIONS)

option(TROTH_WERROR "Treat warnings as errors" OFF)
add_library(troth_warnings INTERFACE)
target_compile_options(troth_warnings INTERFACE -Wall -Wextra $<$<BOOL:${TROTH_WERROR}>:-Werror>)

# "", "address,undefined" or "thread".
set(TROTH_SANITIZE "" CACHE STRING "Sanitizers for every target")
if(TROTH_SANITIZE)
  # -O1 (the last one counts): the frames stay readable, and the build takes half the time.
  add_compile_options(-O1 -fsanitize=${TROTH_SANITIZE} -fno-omit-frame-pointer
                      -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${TROTH_SANITIZE})
endif()

# No precompiled headers: docs/decisions/0004-no-precompiled-headers.md.
find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
endif()

include(CheckLinkerFlag)
foreach(linker mold lld)
  check_linker_flag(CXX -fuse-ld=${linker} TROTH_HAS_${linker})
  if(TROTH_HAS_${linker})
    add_link_options(-fuse-ld=${linker})
    break()
  endif()
endforeach()

# clang's proof that what a mutex guards is touched only under it (scripts/check).
option(TROTH_THREAD_SAFETY "Run clang's thread-safety analysis" OFF)
if(TROTH_THREAD_SAFETY)
  target_compile_options(troth_warnings INTERFACE -Wthread-safety)
endif()

# What troth_generated (TrothTargets.cmake) gives to code that Thrift wrote.
add_library(troth_generated_code INTERFACE)
if(TROTH_SANITIZE)
  target_compile_options(troth_generated_code INTERFACE -O0 -fno-sanitize=undefined)
endif()
