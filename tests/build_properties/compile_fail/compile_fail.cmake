# SPDX-License-Identifier: MIT
# Compiles SOURCE, which names the text that the compiler must print in lines "// expect: <text>"; a source without such
# a line must compile. A line "// flags: <flags>" adds flags; with -O in them code is made, for warnings that need it.
# PRECOMPILED is what precompile.cmake has made.
#   cmake -D SOURCE=... -D COMPILER=... -D INCLUDES=dir|dir -D PRECOMPILED=... -P compile_fail.cmake
string(REPLACE "|" ";-I;" includes "${INCLUDES}")
file(STRINGS "${SOURCE}" flags REGEX "^// flags: ")
string(REPLACE "// flags: " "" flags "${flags}")
separate_arguments(flags)
if(flags MATCHES "-O")
  set(what -c -o /dev/null)
else()
  set(what -fsyntax-only)
endif()
file(STRINGS "${SOURCE}" parts REGEX "^#include \"parts.hpp\"")
if(parts AND NOT flags)
  list(APPEND what -include "${PRECOMPILED}")
endif()
execute_process(COMMAND "${COMPILER}" -std=c++20 ${what} ${flags} -I ${includes} "${SOURCE}"
                RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)

file(STRINGS "${SOURCE}" expectations REGEX "^// expect: ")
if(NOT expectations)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "${SOURCE}: expected it to compile, found\n${output}")
  endif()
  return()
endif()

if(result EQUAL 0)
  message(FATAL_ERROR "${SOURCE}: expected a compile error, found none")
endif()
foreach(expectation IN LISTS expectations)
  string(REPLACE "// expect: " "" text "${expectation}")
  string(FIND "${output}" "${text}" at)
  if(at EQUAL -1)
    message(FATAL_ERROR "${SOURCE}: expected an error with the text\n  ${text}\nfound\n${output}")
  endif()
endforeach()
