# SPDX-License-Identifier: MIT
# The flags of mole.pc are enough to compile the consumer, and name nothing of Eigen.
#   cmake -D PREFIX=<installed> -D PKG_CONFIG=<program> -D COMPILER=<C++ compiler> -P pkg_config.cmake
file(GLOB_RECURSE package "${PREFIX}/*/mole.pc")
get_filename_component(directory "${package}" DIRECTORY)
execute_process(COMMAND "${CMAKE_COMMAND}" -E env "PKG_CONFIG_PATH=${directory}" "${PKG_CONFIG}" --cflags mole
                RESULT_VARIABLE result OUTPUT_VARIABLE flags ERROR_VARIABLE error OUTPUT_STRIP_TRAILING_WHITESPACE)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "pkg_config: expected flags of mole, found ${result}\n${error}")
endif()
if(NOT flags MATCHES "^-I[^ ]+( -I[^ ]+)* *$" OR flags MATCHES "eigen3")
  message(FATAL_ERROR "pkg_config: expected include directories of mole and xsimd alone, found '${flags}'")
endif()
separate_arguments(flags UNIX_COMMAND "${flags}")
execute_process(COMMAND "${COMPILER}" -std=c++20 -fsyntax-only ${flags} "${CMAKE_CURRENT_LIST_DIR}/main.cpp"
                RESULT_VARIABLE result ERROR_VARIABLE error)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "pkg_config: expected the consumer to compile with ${flags}, found\n${error}")
endif()
