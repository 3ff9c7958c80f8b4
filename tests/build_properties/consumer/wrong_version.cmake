# SPDX-License-Identifier: MIT
# find_package must refuse a version that is not there, and name the one that is.
#   cmake -D BINARY=<directory> -D GENERATOR=... -D VERSION=<installed> -D "OPTIONS=-DA=b|-DC=d" -P wrong_version.cmake
string(REPLACE "|" ";" options "${OPTIONS}")
file(REMOVE_RECURSE "${BINARY}")
execute_process(COMMAND "${CMAKE_COMMAND}" -S "${CMAKE_CURRENT_LIST_DIR}" -B "${BINARY}" -G "${GENERATOR}"
                        -DMOLE_REQUESTED=99 ${options}
                RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
if(result EQUAL 0)
  message(FATAL_ERROR "wrong_version: expected find_package(mole 99) to fail, found success")
endif()
if(NOT output MATCHES "moleConfig.cmake, version: ${VERSION}")
  message(FATAL_ERROR "wrong_version: expected the version ${VERSION} to be refused, found\n${output}")
endif()
