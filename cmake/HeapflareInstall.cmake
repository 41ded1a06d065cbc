# What `cmake --install` lays out: bin, lib, include, lib/cmake/heapflare, lib/pkgconfig.
include(CMakePackageConfigHelpers)

install(TARGETS heapflare LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES ${HEAPFLARE_ARCHIVES} DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY ${CMAKE_SOURCE_DIR}/include/heapflare DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
if(TARGET heapflare_command)
  install(TARGETS heapflare_command RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()

set(_package ${CMAKE_INSTALL_LIBDIR}/cmake/heapflare)
configure_package_config_file(${CMAKE_SOURCE_DIR}/cmake/heapflareConfig.cmake.in
  ${CMAKE_BINARY_DIR}/heapflareConfig.cmake INSTALL_DESTINATION ${_package})
write_basic_package_version_file(${CMAKE_BINARY_DIR}/heapflareConfigVersion.cmake
  COMPATIBILITY SameMajorVersion)
install(FILES ${CMAKE_BINARY_DIR}/heapflareConfig.cmake
  ${CMAKE_BINARY_DIR}/heapflareConfigVersion.cmake DESTINATION ${_package})

configure_file(${CMAKE_SOURCE_DIR}/cmake/heapflare.pc.in ${CMAKE_BINARY_DIR}/heapflare.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/heapflare.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
