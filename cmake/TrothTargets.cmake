# One library per folder, named troth_<folder>; its link line spells out the arrows.
# Sources are listed, never globbed: a file that nobody names is not part of the house.

# troth_library(common SOURCES a.cc b.cc [DEPENDS troth_x ...] [PRIVATE_DEPENDS ...])
function(troth_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS;PRIVATE_DEPENDS" ${ARGN})
  add_library(troth_${name} STATIC ${ARG_SOURCES})
  add_library(troth::${name} ALIAS troth_${name})
  target_include_directories(troth_${name} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>
                                                  $<INSTALL_INTERFACE:include/troth>)
  target_link_libraries(troth_${name} PUBLIC ${ARG_DEPENDS}
                        PRIVATE ${ARG_PRIVATE_DEPENDS} $<BUILD_INTERFACE:troth_warnings>)
endfunction()

# troth_program(troth-coordinator SOURCES main.cc DEPENDS troth_coordinator)
function(troth_program name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_DEPENDS} troth_warnings)
endfunction()

# troth_test(wal_test SOURCES wal_test.cc DEPENDS troth_recovery LABELS quick [TIMEOUT 30])
# One ctest entry per test program, run from the source root.
function(troth_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;DEPENDS;LABELS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_DEPENDS} GTest::gtest GTest::gtest_main GTest::gmock troth_warnings)
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 60)
  endif()
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT ${ARG_TIMEOUT})
endfunction()

# troth_generated(troth_thrift): its sources are made by a compiler of others. Our warnings do not
# apply, and the sanitizers look at memory and threads only, without optimising: a sixth of the
# time to build, where undefined behaviour would be Thrift's.
function(troth_generated target)
  target_link_libraries(${target} PRIVATE $<BUILD_INTERFACE:troth_generated_code>)
endfunction()
