# SPDX-License-Identifier: MIT
# Configures the consumer, which find_package must refuse, with a reason that holds EXPECTED, spaces and lines apart.
#   cmake -D BINARY=<directory> -D GENERATOR=... -D "OPTIONS=-DA=b|-DC=d" -D EXPECTED=<text> -P refused.cmake
string(REPLACE "|" ";" options "${OPTIONS}")
file(REMOVE_RECURSE "${BINARY}")
execute_process(COMMAND "${CMAKE_COMMAND}" -S "${CMAKE_CURRENT_LIST_DIR}" -B "${BINARY}" -G "${GENERATOR}" ${options}
                RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
if(result EQUAL 0)
  message(FATAL_ERROR "refused: expected find_package(mole) to fail with ${options}, found success")
endif()
string(REGEX REPLACE "[ \n]+" " " text "${output}")
string(FIND "${text}" "${EXPECTED}" place)
if(place EQUAL -1)
  message(FATAL_ERROR "refused: expected \"${EXPECTED}\", found\n${output}")
endif()
