# SPDX-License-Identifier: MIT
# MOLE_RUNNABLE_ARCHS: the instruction sets of the kernel tests that this compiler makes and this machine runs.
include_guard(GLOBAL)
include(CheckCXXSourceRuns)

set(MOLE_RUNNABLE_ARCHS baseline native)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  check_cxx_source_runs(
    "int main() { return __builtin_cpu_supports(\"avx2\") && __builtin_cpu_supports(\"fma\") ? 0 : 1; }" MOLE_RUNS_AVX2)
  if(MOLE_RUNS_AVX2)
    list(APPEND MOLE_RUNNABLE_ARCHS x86-64-v3)
  else()
    message(STATUS "mole: this machine does not run AVX2; kernels are tested for ${MOLE_RUNNABLE_ARCHS} only")
  endif()
endif()
