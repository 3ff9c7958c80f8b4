# SPDX-License-Identifier: MIT
# Configures, builds and runs the consumer, and reads the flags that it was compiled with.
#   cmake -D BINARY=<directory> -D GENERATOR=... -D "OPTIONS=-DA=b|-DC=d" -P consumer.cmake
string(REPLACE "|" ";" options "${OPTIONS}")
file(REMOVE_RECURSE "${BINARY}")

function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "consumer: expected success of ${ARGN}, found ${result}\n${output}")
  endif()
endfunction()

run("${CMAKE_COMMAND}" -S "${CMAKE_CURRENT_LIST_DIR}" -B "${BINARY}" -G "${GENERATOR}" -DCMAKE_EXPORT_COMPILE_COMMANDS=ON
    ${options})
run("${CMAKE_COMMAND}" --build "${BINARY}")
run("${BINARY}/consumer")

# mole leaves it to its consumer to install Eigen.
file(GLOB fetched "${BINARY}/_deps/eigen*")
if(fetched)
  message(FATAL_ERROR "consumer: expected no download of Eigen, found ${fetched}")
endif()

# One command, C++20 unless the program is of C, and none of our own flags.
file(READ "${BINARY}/compile_commands.json" commands)
string(JSON count LENGTH "${commands}")
if(NOT count EQUAL 1)
  message(FATAL_ERROR "consumer: expected one compile command, found ${count}: mole added targets to its consumer")
endif()
string(JSON command GET "${commands}" 0 command)
if(NOT command MATCHES " -std=(c|gnu)\\+\\+2" AND NOT command MATCHES "c\\.c$")
  message(FATAL_ERROR "consumer: expected C++20 from mole::mole, found ${command}")
endif()
string(REGEX MATCHALL " -(W|m|f|D|O|pthread)[^ ]*" ours "${command}")
if(ours)
  message(FATAL_ERROR "consumer: expected no flags of mole, found ${ours} in ${command}")
endif()
