# What `cmake --install` puts where, find_package(troth) and pkg-config, and the Debian packages
# that CPack makes of it (scripts/package). docs/operations.md, "Install".
#
# A component is a package: coordinator, participant, trothctl, dev (the C++ libraries), python.
include(GNUInstallDirs)

# ---- Programs.
install(TARGETS troth-coordinator DESTINATION bin COMPONENT coordinator)
install(TARGETS troth-participant DESTINATION bin COMPONENT participant)
install(TARGETS trothctl DESTINATION bin COMPONENT trothctl)
install(FILES packaging/coordinator.flags
        DESTINATION share/doc/troth-coordinator/examples COMPONENT coordinator)
install(FILES packaging/participant-NAME.flags.example
        DESTINATION share/doc/troth-participant/examples COMPONENT participant)

# Units and flag files name where they are installed: known when that is done.
foreach(component coordinator participant)
  install(CODE "set(troth_component ${component})
                set(troth_source ${PROJECT_SOURCE_DIR}/packaging)
                set(troth_made ${PROJECT_BINARY_DIR}/packaging)"
          COMPONENT ${component})
  install(SCRIPT cmake/install_service.cmake COMPONENT ${component})
endforeach()

# ---- Manual pages: docs/man/NAME.SECTION.md, with the flags as the program itself shows them.
add_custom_target(manual_pages ALL)
function(troth_manual_page page program component)
  if(NOT GO_MD2MAN)
    return()
  endif()
  string(REGEX REPLACE ".*\\." "" section ${page})
  set(source ${PROJECT_SOURCE_DIR}/docs/man/${page}.md)
  set(made ${PROJECT_BINARY_DIR}/man/${page}.gz)
  add_custom_command(
    OUTPUT ${made}
    COMMAND ${PROJECT_SOURCE_DIR}/cmake/manual_page.py --program ${CMAKE_RUNTIME_OUTPUT_DIRECTORY}/${program}
            --version ${PROJECT_VERSION} ${source} ${made}
    DEPENDS ${source} ${program} ${PROJECT_SOURCE_DIR}/cmake/manual_page.py
    COMMENT "Writing ${page}")
  add_custom_target(manual_${page} DEPENDS ${made})
  add_dependencies(manual_pages manual_${page})
  install(FILES ${made} DESTINATION share/man/man${section} COMPONENT ${component})
endfunction()
troth_manual_page(troth-coordinator.8 troth-coordinator coordinator)
troth_manual_page(troth-participant.8 troth-participant participant)
troth_manual_page(trothctl.1 trothctl trothctl)
troth_manual_page(troth-conformance.1 troth-conformance python)

# ---- The C++ libraries: static, for their binary interface is not promised yet. In the order of
# linking; those of the participant come before those of the client. CMake names what is missing here
# when a library of theirs comes to need another.
set(client_libraries client security protocol sql_thrift thrift common)
set(participant_libraries participant participant_inspection postgres branch_table monitoring wire vote_mac)
foreach(side client participant)
  set(archives)
  foreach(library ${${side}_libraries})
    set_target_properties(troth_${library} PROPERTIES EXPORT_NAME ${library})
    install(TARGETS troth_${library} EXPORT troth-${side}
            ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT dev)
    get_target_property(kind troth_${library} TYPE)
    if(NOT kind STREQUAL INTERFACE_LIBRARY)
      string(APPEND archives " -ltroth_${library}")
    endif()
  endforeach()
  install(EXPORT troth-${side} NAMESPACE troth:: FILE troth-${side}.cmake
          DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/troth COMPONENT dev)
  set(${side}_archives "${archives}")
  configure_file(packaging/troth-${side}.pc.in packaging/troth-${side}.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/packaging/troth-${side}.pc
          DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT dev)
endforeach()
include(CMakePackageConfigHelpers)
write_basic_package_version_file(packaging/troth-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES packaging/troth-config.cmake ${PROJECT_BINARY_DIR}/packaging/troth-config-version.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/troth COMPONENT dev)

# The headers an application includes, and those that these include; tests/packages/run compiles
# each alone. An application's own IDL includes the contract and is generated against it.
foreach(room client common participant wire)
  set(headers_of_client address.h client.h outcome.h transaction.h)
  set(headers_of_common status.h)
  set(headers_of_participant branch_counts.h options.h participant.h)
  set(headers_of_wire security_options.h)
  list(TRANSFORM headers_of_${room} PREPEND ${room}/)
  install(FILES ${headers_of_${room}} DESTINATION include/troth/${room} COMPONENT dev)
endforeach()
foreach(generated troth_types troth_constants coordinator_types participant_types Participant
                  sql_types SqlParticipant)
  install(FILES ${PROJECT_BINARY_DIR}/thrift/gen-cpp/${generated}.h
          DESTINATION include/troth COMPONENT dev)
endforeach()
install(FILES thrift/troth.thrift thrift/participant.thrift thrift/coordinator.thrift
              thrift/sql.thrift
        DESTINATION share/troth/thrift COMPONENT dev)

# ---- Documents of each package.
foreach(package IN ITEMS coordinator:troth-coordinator participant:troth-participant
                         trothctl:trothctl dev:libtroth-dev python:python3-troth)
  string(REPLACE ":" ";" package ${package})
  list(GET package 0 component)
  list(GET package 1 name)
  install(FILES packaging/copyright CHANGELOG.md DESTINATION share/doc/${name} COMPONENT ${component})
  string(TOUPPER ${component} upper)
  set(CPACK_DEBIAN_${upper}_PACKAGE_NAME ${name})
  set(CPACK_DEBIAN_${upper}_FILE_NAME DEB-DEFAULT)
endforeach()
# All that the operator's manual refers to, so that its links lead somewhere.
install(DIRECTORY docs/ DESTINATION share/doc/troth-coordinator COMPONENT coordinator
        PATTERN man EXCLUDE)
install(FILES docs/participants.md DESTINATION share/doc/libtroth-dev COMPONENT dev)

# ---- Debian packages. Libraries that programs link are found by dpkg-shlibdeps.
set(CPACK_GENERATOR DEB)
set(CPACK_SET_DESTDIR ON)
set(CPACK_INSTALL_PREFIX /usr)
set(CPACK_PACKAGE_DIRECTORY ${PROJECT_BINARY_DIR}/packages)
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL coordinator participant trothctl dev python)
set(CPACK_COMPONENTS_GROUPING ONE_PER_GROUP)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_PACKAGE_CONTACT "The Troth project <troth@localhost>")
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_PACKAGE_SECTION database)
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "${PROJECT_DESCRIPTION}")
set(about " Troth makes one transaction out of changes in several services' PostgreSQL\n databases: all of them commit, or none does.\n .\n")

set(CPACK_DEBIAN_COORDINATOR_DESCRIPTION "Troth: the coordinator of distributed transactions\n${about} This is the coordinator, with its log and a systemd unit.")
set(CPACK_DEBIAN_COORDINATOR_PACKAGE_DEPENDS adduser)
set(CPACK_DEBIAN_COORDINATOR_PACKAGE_RECOMMENDS trothctl)
set(CPACK_DEBIAN_PARTICIPANT_DESCRIPTION "Troth: a PostgreSQL database as a participant, without code\n${about} This is the ready-made participant, with a systemd unit for each database.")
set(CPACK_DEBIAN_PARTICIPANT_PACKAGE_DEPENDS adduser)
set(CPACK_DEBIAN_PARTICIPANT_PACKAGE_RECOMMENDS "postgresql (>= 15)")
set(CPACK_DEBIAN_TROTHCTL_DESCRIPTION "Troth: shows and settles what a coordinator does\n${about} This is the command line for operators.")
set(CPACK_DEBIAN_DEV_DESCRIPTION "Troth: C++ libraries for clients and participants\n${about} These are the static libraries, headers and the Thrift contract.")
set(CPACK_DEBIAN_DEV_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEV_PACKAGE_SHLIBDEPS OFF)
# libthrift-dev forgets to say that its headers need libboost-dev.
set(CPACK_DEBIAN_DEV_PACKAGE_DEPENDS "libthrift-dev, libboost-dev, libpqxx-dev, libpq-dev, libssl-dev, libgoogle-glog-dev, libgflags-dev, libisal-dev, libfiu-dev, prometheus-cpp-dev")
set(CPACK_DEBIAN_DEV_PACKAGE_RECOMMENDS "thrift-compiler, pkg-config")
set(CPACK_DEBIAN_PYTHON_DESCRIPTION "Troth: Python package for clients and participants\n${about} This is the package for Python 3, and troth-conformance, which tries a\n participant's manners.")
set(CPACK_DEBIAN_PYTHON_PACKAGE_SECTION python)
set(CPACK_DEBIAN_PYTHON_PACKAGE_SHLIBDEPS OFF)
set(CPACK_DEBIAN_PYTHON_PACKAGE_ARCHITECTURE all)
# python3-thrift forgets to say that it needs python3-six.
set(CPACK_DEBIAN_PYTHON_PACKAGE_DEPENDS "python3 (>= 3.11), python3-thrift, python3-six, python3-psycopg2")
set(CPACK_DEBIAN_PYTHON_PACKAGE_RECOMMENDS thrift-compiler)

# dpkg takes maintainer scripts by their names only.
foreach(component coordinator participant)
  set(scripts ${PROJECT_BINARY_DIR}/packaging/${component})
  configure_file(packaging/postinst ${scripts}/postinst COPYONLY)
  configure_file(packaging/postrm ${scripts}/postrm COPYONLY)
  configure_file(packaging/${component}-prerm ${scripts}/prerm COPYONLY)
  string(TOUPPER ${component} upper)
  set(CPACK_DEBIAN_${upper}_PACKAGE_CONTROL_EXTRA
      "${scripts}/postinst;${scripts}/postrm;${scripts}/prerm")
endforeach()
foreach(script postinst prerm)
  configure_file(packaging/python-${script} packaging/python/${script} COPYONLY)
endforeach()
set(CPACK_DEBIAN_PYTHON_PACKAGE_CONTROL_EXTRA
    "${PROJECT_BINARY_DIR}/packaging/python/postinst;${PROJECT_BINARY_DIR}/packaging/python/prerm")
file(WRITE ${PROJECT_BINARY_DIR}/packaging/coordinator/conffiles "/etc/troth/coordinator.flags\n")
list(APPEND CPACK_DEBIAN_COORDINATOR_PACKAGE_CONTROL_EXTRA
     ${PROJECT_BINARY_DIR}/packaging/coordinator/conffiles)
include(CPack)
