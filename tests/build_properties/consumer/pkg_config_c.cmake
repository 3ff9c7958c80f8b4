# SPDX-License-Identifier: MIT
# The flags of mole_c.pc are enough for a program of C, with the shared library and with the archive.
#   cmake -D PREFIX=<installed> -D PKG_CONFIG=<program> -D COMPILER=<C compiler> -D BINARY=<directory> -P pkg_config_c.cmake
file(GLOB_RECURSE package "${PREFIX}/*/mole_c.pc")
get_filename_component(directory "${package}" DIRECTORY)
file(GLOB_RECURSE archive "${PREFIX}/*/libmole_c.a")
file(REMOVE_RECURSE "${BINARY}")
file(MAKE_DIRECTORY "${BINARY}/archive")
file(COPY "${archive}" DESTINATION "${BINARY}/archive")  # without the shared library beside it, which linkers prefer

function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE error
                  OUTPUT_STRIP_TRAILING_WHITESPACE)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "pkg_config_c: expected success of ${ARGN}, found ${result}\n${output}\n${error}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()

set(with_package "${CMAKE_COMMAND}" -E env "PKG_CONFIG_PATH=${directory}" "${PKG_CONFIG}")
foreach(form IN ITEMS shared static)
  if(form STREQUAL "static")
    run(${with_package} --static --cflags --libs mole_c)
    separate_arguments(flags UNIX_COMMAND "-L${BINARY}/archive ${output}")
  else()
    run(${with_package} --cflags --libs mole_c)
    separate_arguments(flags UNIX_COMMAND "${output}")
  endif()
  run("${COMPILER}" -std=c99 -pedantic -Wall -Werror "${CMAKE_CURRENT_LIST_DIR}/c.c" -o "${BINARY}/${form}" ${flags})
  get_filename_component(libraries "${archive}" DIRECTORY)
  run("${CMAKE_COMMAND}" -E env "LD_LIBRARY_PATH=${libraries}" "${BINARY}/${form}")
endforeach()
