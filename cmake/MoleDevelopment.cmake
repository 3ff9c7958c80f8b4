# SPDX-License-Identifier: MIT
# mole_dev: the warnings and flags of our own tests, benchmarks and examples. Nothing of it reaches a consumer.
include_guard(GLOBAL)
find_package(Threads REQUIRED)
mole_find_eigen()

find_program(MOLE_CCACHE ccache DOC "Compiler cache of our own builds")
if(MOLE_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER "${MOLE_CCACHE}")
endif()

# The flag of an instruction set of MOLE_ARCH; empty for the compiler's default.
function(mole_arch_flags arch result)
  if(arch STREQUAL "" OR arch STREQUAL "baseline")
    set(${result} "" PARENT_SCOPE)
  elseif(arch MATCHES "^[a-z0-9.-]+$")
    set(${result} "-march=${arch}" PARENT_SCOPE)
  else()
    message(FATAL_ERROR "MOLE_ARCH: expected empty, native, x86-64-v3 or another -march, found '${arch}'")
  endif()
endfunction()

# Warnings, and no contraction of a * b + c that the source does not ask for: bits must not depend on inlining.
add_library(mole_warnings INTERFACE)
target_compile_options(mole_warnings INTERFACE -Wall -Wextra -Wconversion -Wsign-conversion -Wshadow -Wpedantic -ffp-contract=off)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # Wrong in the compiler's own vector headers up to version 13.
  target_compile_options(mole_warnings INTERFACE -Wno-uninitialized -Wno-maybe-uninitialized -Wno-psabi -Wno-ignored-attributes)
endif()
target_link_libraries(mole_warnings INTERFACE mole::eigen Threads::Threads)
if(MOLE_SANITIZE)
  target_compile_options(mole_warnings INTERFACE -fsanitize=${MOLE_SANITIZE} -fno-omit-frame-pointer -O1 -g1)
  target_link_options(mole_warnings INTERFACE -fsanitize=${MOLE_SANITIZE})
  if(MOLE_SANITIZE MATCHES "undefined")
    target_compile_options(mole_warnings INTERFACE -fno-sanitize-recover=undefined)
    if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
      target_compile_options(mole_warnings INTERFACE "-fsanitize-ignorelist=${CMAKE_CURRENT_LIST_DIR}/sanitizer_ignorelist.txt")
    endif()
  endif()
endif()

add_library(mole_dev INTERFACE)
mole_arch_flags("${MOLE_ARCH}" arch_flags)
target_compile_options(mole_dev INTERFACE ${arch_flags})
target_link_libraries(mole_dev INTERFACE mole_warnings)
