# SPDX-License-Identifier: MIT
# include_graph.cmake must accept a right tree, and name file and line of every wrong include.
#   cmake -D SCRATCH=<directory> -P include_graph_self_test.cmake
function(check folder expected_result)
  execute_process(COMMAND "${CMAKE_COMMAND}" -D "ROOT=${SCRATCH}/${folder}" -P "${CMAKE_CURRENT_LIST_DIR}/include_graph.cmake"
                  RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if((result EQUAL 0) STREQUAL (expected_result STREQUAL "fail"))
    message(FATAL_ERROR "${folder}: expected the check to ${expected_result}, found ${result}\n${output}")
  endif()
  foreach(text IN LISTS ARGN)
    string(FIND "${output}" "${text}" at)
    if(at EQUAL -1)
      message(FATAL_ERROR "${folder}: expected '${text}', found\n${output}")
    endif()
  endforeach()
endfunction()

file(REMOVE_RECURSE "${SCRATCH}")
file(WRITE "${SCRATCH}/right/mole/core/view.hpp" "#pragma once\n#include \"mole/core/config.hpp\"\n#include <span>\n")
file(WRITE "${SCRATCH}/right/mole/loss/balance.hpp" "#include \"mole/loss/own.hpp\"\n#include \"mole/gating/select/select_policy.hpp\"\n")
file(WRITE "${SCRATCH}/right/mole/testing/laws.hpp" "#include \"mole/testing/own.hpp\"\n#include \"mole/gating/select/select_policy.hpp\"\n")
check(right pass "3 headers")

file(WRITE "${SCRATCH}/wrong/mole/core/view.hpp" "#pragma once\n\n#include \"mole/kernel/vector.hpp\"\n#include <Eigen/Core>\n")
file(WRITE "${SCRATCH}/wrong/mole/router/a.hpp" "void f(int a[]); // ;\n#  include \"mole/gating/gate.hpp\"\n")
file(WRITE "${SCRATCH}/wrong/mole/loss/b.hpp" "#include \"mole/optim/sgd.hpp\"\n")
file(WRITE "${SCRATCH}/wrong/mole/gating/c.hpp" "#include \"gate.hpp\"\n")
file(WRITE "${SCRATCH}/wrong/mole/unknown/d.hpp" "#include \"mole/core/view.hpp\"\n")
file(WRITE "${SCRATCH}/wrong/mole/mole.hpp" "#include \"mole/testing/laws.hpp\"\n")
file(WRITE "${SCRATCH}/wrong/mole/testing/e.hpp" "#include \"mole/gating/gate.hpp\"\n")
check(wrong fail "core/view.hpp:3: may not include mole/kernel/vector.hpp" "core/view.hpp:4: may not include Eigen/Core"
      "router/a.hpp:2: may not include mole/gating/gate.hpp" "loss/b.hpp:1: may not include mole/optim/sgd.hpp"
      "gating/c.hpp:1: may not include gate.hpp" "unknown/d.hpp:1: may not include mole/core/view.hpp"
      "mole.hpp:1: may not include mole/testing/laws.hpp" "testing/e.hpp:1: may not include mole/gating/gate.hpp" "8 includes")

file(MAKE_DIRECTORY "${SCRATCH}/empty/mole")
check(empty fail "expected headers")
