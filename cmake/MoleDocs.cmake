# SPDX-License-Identifier: MIT
# docs: the reference pages, in docs/html of the build folder. What Doxygen warns of, and what is undocumented, are errors.
include_guard(GLOBAL)
find_package(Doxygen 1.9 REQUIRED)
find_package(Python3 REQUIRED COMPONENTS Interpreter)

configure_file(cmake/docs/Doxyfile.in "${PROJECT_BINARY_DIR}/Doxyfile" @ONLY)
add_custom_target(docs ALL
                  COMMAND Doxygen::doxygen "${PROJECT_BINARY_DIR}/Doxyfile"
                  COMMAND Python3::Interpreter "${PROJECT_SOURCE_DIR}/cmake/docs/check_documented.py" "${PROJECT_BINARY_DIR}/docs/xml"
                  COMMENT "The reference pages: docs/html/index.html")
