# SPDX-License-Identifier: MIT
# What people get without CMake: `cpack` makes libmole-dev, a Debian package, in the build folder; the target single_header
# makes single_header/mole/mole.hpp there.

# ---- the Debian package: the headers, and mole::c if it is built
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME libmole-dev)
set(CPACK_PACKAGE_CONTACT "the mole developers")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "${PROJECT_DESCRIPTION}")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_PACKAGE_DEPENDS "libxsimd-dev (>= 8.1)")
set(CPACK_DEBIAN_PACKAGE_SUGGESTS "libeigen3-dev (>= 3.4), nlohmann-json3-dev")
if(NOT MOLE_BUILD_C)
  set(CPACK_DEBIAN_PACKAGE_ARCHITECTURE all)
endif()
install(FILES LICENSE DESTINATION "${CMAKE_INSTALL_DATAROOTDIR}/doc/libmole-dev" RENAME copyright)
include(CPack)

# ---- the single header
find_package(Python3 QUIET COMPONENTS Interpreter)
if(Python3_FOUND)
  add_custom_target(single_header
                    COMMAND Python3::Interpreter "${CMAKE_CURRENT_LIST_DIR}/single_header.py" "${PROJECT_SOURCE_DIR}/include"
                            "${PROJECT_BINARY_DIR}/single_header/mole/mole.hpp"
                    COMMENT "Joining mole's headers into single_header/mole/mole.hpp")
endif()
