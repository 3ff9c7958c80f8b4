# SPDX-License-Identifier: MIT
# Install, export, version file and pkg-config file.
include_guard(GLOBAL)
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(package_dir "${CMAKE_INSTALL_DATADIR}/cmake/mole")
install(TARGETS mole EXPORT moleTargets FILE_SET HEADERS)
install(EXPORT moleTargets NAMESPACE mole:: DESTINATION "${package_dir}")
install(TARGETS mole_eigen EXPORT moleEigenTargets)
install(EXPORT moleEigenTargets NAMESPACE mole:: DESTINATION "${package_dir}")
if(MOLE_BUILD_C)
  install(TARGETS mole_c_static mole_c_shared EXPORT moleCTargets FILE_SET HEADERS)
  install(EXPORT moleCTargets NAMESPACE mole:: DESTINATION "${package_dir}")
endif()
configure_package_config_file(cmake/moleConfig.cmake.in "${PROJECT_BINARY_DIR}/moleConfig.cmake"
                              INSTALL_DESTINATION "${package_dir}")
set(headers_alone ARCH_INDEPENDENT)
if(MOLE_BUILD_C)
  set(headers_alone "")
endif()
write_basic_package_version_file("${PROJECT_BINARY_DIR}/moleConfigVersion.cmake" COMPATIBILITY SameMinorVersion
                                 ${headers_alone})
install(FILES "${PROJECT_BINARY_DIR}/moleConfig.cmake" "${PROJECT_BINARY_DIR}/moleConfigVersion.cmake"
              cmake/MoleDependencies.cmake DESTINATION "${package_dir}")

configure_file(cmake/mole.pc.in "${PROJECT_BINARY_DIR}/mole.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/mole.pc" DESTINATION "${CMAKE_INSTALL_DATADIR}/pkgconfig")
if(MOLE_BUILD_C)
  configure_file(cmake/mole_c.pc.in "${PROJECT_BINARY_DIR}/mole_c.pc" @ONLY)
  install(FILES "${PROJECT_BINARY_DIR}/mole_c.pc" DESTINATION "${CMAKE_INSTALL_DATADIR}/pkgconfig")
endif()
