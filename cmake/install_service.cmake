# Run by `cmake --install` (TrothInstall.cmake): writes the unit of ${troth_component} for the
# prefix installed to, and the coordinator's flag file unless there is one. Knows no package.
set(bindir ${CMAKE_INSTALL_PREFIX}/bin)
if(CMAKE_INSTALL_PREFIX STREQUAL "/usr")
  set(sysconfdir /etc)
else()
  set(sysconfdir ${CMAKE_INSTALL_PREFIX}/etc)
endif()
if(troth_component STREQUAL "participant")
  set(unit troth-participant@.service)
  file(MAKE_DIRECTORY "$ENV{DESTDIR}${sysconfdir}/troth")  # for flags and statements
else()
  set(unit troth-coordinator.service)
  if(NOT EXISTS "$ENV{DESTDIR}${sysconfdir}/troth/coordinator.flags")
    file(INSTALL ${troth_source}/coordinator.flags DESTINATION ${sysconfdir}/troth)
  endif()
endif()
configure_file(${troth_source}/${unit}.in ${troth_made}/${unit} @ONLY)
file(INSTALL ${troth_made}/${unit} DESTINATION ${CMAKE_INSTALL_PREFIX}/lib/systemd/system)
