# SPDX-License-Identifier: MIT
# Which header may include which: include/mole/README.md, "Who may include whom", as data, and the check of every #include under ROOT/mole.
#   cmake -D ROOT=<include directory> -P include_graph.cmake

# Header : what of mole it may include. Regular expressions of paths below mole/; the first line that fits decides.
set(own_headers
  "fwd\\.hpp                      : core/macros_(off|on)\\.hpp"
  "mole\\.hpp                     : .*"
  "method/.*                      : .*"
  "c/.*                           : .*"
  "fixed/fixed_linear\\.hpp        : core/macros_(off|on)\\.hpp"
  "fixed/.*                       : .*"
  "core/.*                        : core/.*"
  "kernel/.*                      : kernel/.* core/(config|mix_bits|macros_off|macros_on)\\.hpp"
  "execution/default_execution.*  : execution/.* core/macros_(off|on)\\.hpp"
  "execution/.*                   : execution/.* core/.* kernel/.*"
  "router/.*                      : router/.* core/.* kernel/.* execution/execution_policy\\.hpp"
  "gating/score/.*                : gating/score/.* core/.* kernel/.*"
  "gating/select/.*               : gating/select/.* core/.* kernel/.*"
  "gating/weigh/.*                : gating/weigh/.* core/.* kernel/.*"
  "gating/.*                      : gating/.* core/.* kernel/.* execution/execution_policy\\.hpp"
  "factors/.*                     : factors/.* core/.* kernel/.* execution/execution_policy\\.hpp"
  "base/.*                        : base/.* core/.* kernel/.* execution/execution_policy\\.hpp"
  "maps/.*                        : maps/.* core/.* kernel/.* execution/execution_policy\\.hpp"
  "expert/.*                      : expert/.* core/.* kernel/.* execution/execution_policy\\.hpp (maps/map|factors/factor)_policy\\.hpp"
  "layer/any_layer\\.hpp           : layer/.* core/.* surgery/merge\\.hpp"
  "layer/feed_forward_experts\\.hpp : layer/.* core/.* kernel/.* [a-z]+/[a-z]+_policy\\.hpp"
  "layer/.*                       : layer/.* core/.* [a-z]+/[a-z]+_policy\\.hpp execution/default_execution\\.hpp"
  "combiner/.*                    : combiner/.* core/.* execution/execution_policy\\.hpp"
  "serve/.*                       : serve/.* core/.* kernel/.* execution/(default_execution|simd_terms)\\.hpp surgery/weighted_adapter\\.hpp [a-z]+/[a-z]+_policy\\.hpp"
  "optim/.*                       : optim/.* kernel/.* core/.*"
  "testing/.*                     : testing/.* layer/.* core/.* kernel/.* execution/.* ([a-z]+/)?[a-z]+/[a-z_]+_policy\\.hpp"
  "io/(bitsandbytes|safetensors_weight|gguf/gguf_(weight|lora|writer)|peft/(peft_(experts|mixtures|bank|layers|writer)|merge_peft))\\.hpp : .*"
  "io/((layer|convert)/.*|(moe_peft/moe_peft|xlora/xlora)_layers\\.hpp|moe_peft/moe_peft_writer\\.hpp|xlora/write_xlora\\.hpp) : .*"
  "(loss|init|surgery|adapt|stats|io)/.* : OWN/.* layer/.* core/.* ([a-z]+/)?[a-z]+/[a-z]+_policy\\.hpp"
  "(interop|distributed)/.*       : .*")

# Library : headers of mole that may include it. The standard library is everybody's.
set(other_libraries
  "[a-z_]+                             : .*"
  "xsimd/.*                            : kernel/architecture\\.hpp"
  "Eigen/.*                            : execution/through_eigen\\.hpp interop/.* init/.* surgery/.*"
  "nlohmann/.*                         : io/.*"
  "(unistd|fcntl|sys/stat)\\.h         : io/.*"
  "sys/mman\\.h                        : io/.* core/memory/huge_pages\\.hpp"
  "xmmintrin\\.h                       : execution/float_environment\\.hpp"
  "pthread\\.h                         : execution/thread_pool\\.hpp"
  "torch/.*                            : interop/torch.*"
  "mpi\\.h                             : distributed/.*")

# Sets `result` to the right-hand side of the first line of `table` whose left-hand side is all of `name`.
function(look_up table name result)
  foreach(line IN LISTS ${table})
    string(REGEX MATCH "^([^ ]+) +: (.*)$" matched "${line}")
    set(left "${CMAKE_MATCH_1}")
    string(REPLACE " " ";" right "${CMAKE_MATCH_2}")
    if(name MATCHES "^(${left})$")
      set(${result} "${right}" PARENT_SCOPE)
      return()
    endif()
  endforeach()
  set(${result} "nothing" PARENT_SCOPE)
endfunction()

function(fits name patterns result)
  foreach(pattern IN LISTS patterns)
    if(name MATCHES "^(${pattern})$")
      set(${result} TRUE PARENT_SCOPE)
      return()
    endif()
  endforeach()
  set(${result} FALSE PARENT_SCOPE)
endfunction()

file(GLOB_RECURSE headers RELATIVE "${ROOT}/mole" "${ROOT}/mole/*.hpp")
list(LENGTH headers count)
if(count EQUAL 0)
  message(FATAL_ERROR "include_graph: expected headers under ${ROOT}/mole, found none")
endif()

set(violations 0)
foreach(header IN LISTS headers)
  look_up(own_headers "${header}" allowed)
  string(REGEX MATCH "^[^/]+" own "${header}")
  list(TRANSFORM allowed REPLACE "^OWN/" "${own}/")
  file(READ "${ROOT}/mole/${header}" text)
  string(REGEX REPLACE "[][;\\]" "_" text "${text}")
  string(REPLACE "\n" ";" lines "${text}")
  set(number 0)
  foreach(line IN LISTS lines)
    math(EXPR number "${number} + 1")
    if(NOT line MATCHES "^[ \t]*#[ \t]*include[ \t]*([<\"])([^>\"]+)[>\"]")
      continue()
    endif()
    set(quote "${CMAKE_MATCH_1}")
    set(included "${CMAKE_MATCH_2}")
    if(included MATCHES "^mole/(.*)$")
      fits("${CMAKE_MATCH_1}" "${allowed}" fine)
      # Laws are for the tests of a user: the library itself, mole.hpp and methods included, does without.
      if(included MATCHES "^mole/testing/" AND NOT own STREQUAL "testing")
        set(fine FALSE)
      endif()
    elseif(quote STREQUAL "<")
      look_up(other_libraries "${included}" includers)
      fits("${header}" "${includers}" fine)
    else()
      set(fine FALSE)  # own headers are named from mole/ on
    endif()
    if(NOT fine)
      message("${ROOT}/mole/${header}:${number}: may not include ${included}")
      math(EXPR violations "${violations} + 1")
    endif()
  endforeach()
endforeach()

if(violations GREATER 0)
  message(FATAL_ERROR "include_graph: ${violations} includes against include/mole/README.md")
endif()
message("include_graph: ${count} headers follow include/mole/README.md")
