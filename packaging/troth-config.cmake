# find_package(troth [COMPONENTS client participant]): the targets troth::client and
# troth::participant, static libraries, with all they need. Without COMPONENTS: both.
include(CMakeFindDependencyMacro)
find_dependency(Threads)
find_dependency(PkgConfig)
if(NOT troth_FIND_COMPONENTS)
  set(troth_FIND_COMPONENTS client participant)
endif()

pkg_check_modules(THRIFT REQUIRED QUIET IMPORTED_TARGET thrift)
pkg_check_modules(ISAL REQUIRED QUIET IMPORTED_TARGET libisal)
pkg_check_modules(GLOG REQUIRED QUIET IMPORTED_TARGET libglog)
find_dependency(OpenSSL)
include(${CMAKE_CURRENT_LIST_DIR}/troth-client.cmake)
set(troth_client_FOUND TRUE)

if("participant" IN_LIST troth_FIND_COMPONENTS)
  pkg_check_modules(PQXX REQUIRED QUIET IMPORTED_TARGET libpqxx)
  pkg_check_modules(PQ REQUIRED QUIET IMPORTED_TARGET libpq)
  pkg_check_modules(PROMETHEUS REQUIRED QUIET IMPORTED_TARGET prometheus-cpp-core)
  include(${CMAKE_CURRENT_LIST_DIR}/troth-participant.cmake)
  set(troth_participant_FOUND TRUE)
endif()

# Where the contract is, for an IDL that includes it: thrift -I ${troth_THRIFT_DIR} ...
get_filename_component(troth_THRIFT_DIR ${CMAKE_CURRENT_LIST_DIR} REALPATH)
while(NOT EXISTS ${troth_THRIFT_DIR}/share/troth/thrift AND NOT troth_THRIFT_DIR STREQUAL "/")
  get_filename_component(troth_THRIFT_DIR ${troth_THRIFT_DIR} DIRECTORY)
endwhile()
set(troth_THRIFT_DIR ${troth_THRIFT_DIR}/share/troth/thrift)

foreach(component ${troth_FIND_COMPONENTS})
  if(troth_FIND_REQUIRED_${component} AND NOT troth_${component}_FOUND)
    set(troth_FOUND FALSE)
    set(troth_NOT_FOUND_MESSAGE "troth has no component '${component}': client, participant")
  endif()
endforeach()
