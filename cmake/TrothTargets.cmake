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

# troth_idl(bank_thrift bank.thrift SERVICES BankBranch): the C++ of an IDL of this folder that includes
# the contract (thrift/).
function(troth_idl name idl)
  cmake_parse_arguments(ARG "" "" "SERVICES" ${ARGN})
  get_filename_component(unit ${idl} NAME_WE)
  set(generated ${CMAKE_CURRENT_BINARY_DIR}/gen-cpp)
  set(sources ${generated}/${unit}_types.cpp)
  foreach(service ${ARG_SERVICES})
    list(APPEND sources ${generated}/${service}.cpp)
  endforeach()
  # Named too, or a change of the IDL is overlooked by who includes them, once.
  string(REPLACE .cpp .h headers "${sources}")
  add_custom_command(
    OUTPUT ${sources}
    BYPRODUCTS ${headers}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${generated}
    COMMAND ${THRIFT_COMPILER} --gen cpp:no_skeleton,moveable_types -I ${PROJECT_SOURCE_DIR}/thrift
            -out ${generated} ${CMAKE_CURRENT_SOURCE_DIR}/${idl}
    DEPENDS ${idl} ${PROJECT_SOURCE_DIR}/thrift/troth.thrift
            ${PROJECT_SOURCE_DIR}/thrift/participant.thrift
    COMMENT "Generating C++ from ${idl}")
  add_library(${name} STATIC ${sources})
  target_include_directories(${name} SYSTEM PUBLIC ${generated})
  target_link_libraries(${name} PUBLIC troth_thrift)
  troth_generated(${name})
endfunction()
