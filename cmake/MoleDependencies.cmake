# SPDX-License-Identifier: MIT
# Finds each package, or else fetches a pinned version and says so. Also part of the installed package.
include_guard(GLOBAL)
include(FetchContent)

# Declares `name` from `url` and unpacks it without building it, into ${name}_SOURCE_DIR.
function(mole_fetch name version url hash)
  message(STATUS "mole: ${name} is not installed, fetching ${version}")
  FetchContent_Declare(${name} URL ${url} URL_HASH SHA256=${hash} SOURCE_SUBDIR not-built SYSTEM)
  FetchContent_MakeAvailable(${name})
  FetchContent_GetProperties(${name} SOURCE_DIR directory)
  set(${name}_SOURCE_DIR "${directory}" PARENT_SCOPE)
endfunction()

# An imported target with nothing but an include directory.
function(mole_headers_target target directory)
  add_library(${target} INTERFACE IMPORTED GLOBAL)
  set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${directory}")
endfunction()

# Eigen where the project has it already or the machine has it installed; else there is no target Eigen3::Eigen.
function(mole_find_installed_eigen)
  if(TARGET Eigen3::Eigen)
    return()
  endif()
  find_package(Eigen3 3.4 QUIET CONFIG)
  if(Eigen3_FOUND)
    set_target_properties(Eigen3::Eigen PROPERTIES IMPORTED_GLOBAL TRUE)
  endif()
endfunction()

function(mole_find_eigen)
  mole_find_installed_eigen()
  if(TARGET Eigen3::Eigen)
    return()
  endif()
  mole_fetch(eigen 3.4.0 https://gitlab.com/libeigen/eigen/-/archive/3.4.0/eigen-3.4.0.tar.gz
             8586084f71f9bde545ee7fa6d00288b264a2b7ac3607b974e54d13e7162c1c72)
  mole_headers_target(Eigen3::Eigen "${eigen_SOURCE_DIR}")
endfunction()

# libtorch where it is installed: what to link, or nothing. It is as large as it is optional, and never fetched.
function(mole_find_installed_torch libraries)
  set(${libraries} "" PARENT_SCOPE)
  find_package(Torch QUIET CONFIG)
  if(NOT Torch_FOUND)
    message(STATUS "mole: no libtorch is installed, so what needs it is left out")
    return()
  endif()
  # Headers of 1.13 are no C++20 to clang 14.
  include(CheckCXXSourceCompiles)
  set(CMAKE_CXX_STANDARD 20)
  set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
  set(CMAKE_REQUIRED_LIBRARIES torch)
  check_cxx_source_compiles("#include <torch/types.h>" MOLE_TORCH_IS_CXX20)
  if(MOLE_TORCH_IS_CXX20)
    set(${libraries} ${TORCH_LIBRARIES} PARENT_SCOPE)
  else()
    message(STATUS "mole: this libtorch does not compile as C++20 with this compiler, so what needs it is left out")
  endif()
endfunction()

# Debian's own target `xsimd` links a library that does not exist: only its directory is of use.
function(mole_find_xsimd)
  if(TARGET mole::xsimd)
    return()
  endif()
  find_path(MOLE_XSIMD_INCLUDE_DIR xsimd/xsimd.hpp DOC "Directory that holds xsimd/xsimd.hpp")
  if(MOLE_XSIMD_INCLUDE_DIR)
    mole_headers_target(mole::xsimd "${MOLE_XSIMD_INCLUDE_DIR}")
    return()
  endif()
  mole_fetch(xsimd 13.2.0 https://github.com/xtensor-stack/xsimd/archive/refs/tags/13.2.0.tar.gz
             edd8cd3d548c185adc70321c53c36df41abe64c1fe2c67bc6d93c3ecda82447a)
  mole_headers_target(mole::xsimd "${xsimd_SOURCE_DIR}/include")
endfunction()

function(mole_find_json)
  if(TARGET nlohmann_json::nlohmann_json)
    return()
  endif()
  find_package(nlohmann_json 3 QUIET CONFIG)
  if(nlohmann_json_FOUND)
    set_target_properties(nlohmann_json::nlohmann_json PROPERTIES IMPORTED_GLOBAL TRUE)
    return()
  endif()
  mole_fetch(nlohmann_json 3.11.2 https://github.com/nlohmann/json/archive/refs/tags/v3.11.2.tar.gz
             d69f9deb6a75e2580465c6c4c5111b89c4dc2fa94e3a85fcd2ffcd9a143d9273)
  mole_headers_target(nlohmann_json::nlohmann_json "${nlohmann_json_SOURCE_DIR}/include")
endfunction()

function(mole_find_cli11)
  if(TARGET CLI11::CLI11)
    return()
  endif()
  find_package(CLI11 2 QUIET CONFIG)
  if(CLI11_FOUND)
    set_target_properties(CLI11::CLI11 PROPERTIES IMPORTED_GLOBAL TRUE)
    return()
  endif()
  mole_fetch(cli11 2.5.0 https://github.com/CLIUtils/CLI11/archive/refs/tags/v2.5.0.tar.gz
             17e02b4cddc2fa348e5dbdbb582c59a3486fa2b2433e70a0c3bacb871334fd55)
  mole_headers_target(CLI11::CLI11 "${cli11_SOURCE_DIR}/include")
endfunction()

# Catch2 v2 or v3: both offer Catch2::Catch2WithMain.
function(mole_find_catch)
  find_package(Catch2 QUIET CONFIG)
  if(Catch2_FOUND)
    return()
  endif()
  message(STATUS "mole: Catch2 is not installed, fetching 3.7.1")
  FetchContent_Declare(catch2 URL https://github.com/catchorg/Catch2/archive/refs/tags/v3.7.1.tar.gz
                       URL_HASH SHA256=c991b247a1a0d7bb9c39aa35faf0fe9e19764213f28ffba3109388e62ee0269c SYSTEM)
  FetchContent_MakeAvailable(catch2)
endfunction()

function(mole_find_benchmark)
  find_package(benchmark QUIET CONFIG)
  if(benchmark_FOUND)
    return()
  endif()
  message(STATUS "mole: Google Benchmark is not installed, fetching 1.7.1")
  set(BENCHMARK_ENABLE_TESTING OFF)
  set(BENCHMARK_ENABLE_INSTALL OFF)
  FetchContent_Declare(benchmark URL https://github.com/google/benchmark/archive/refs/tags/v1.7.1.tar.gz
                       URL_HASH SHA256=6430e4092653380d9dc4ccb45a1e2dc9259d581f4866dc0759713126056bc1d7 SYSTEM)
  FetchContent_MakeAvailable(benchmark)
endfunction()
