# SPDX-License-Identifier: MIT
# mole::c: the library for C, compiled once, as an archive (mole::c_static) and as a shared library (mole::c_shared).
include_guard(GLOBAL)
find_package(Threads REQUIRED)
mole_find_json()

# One unit calls the presets, which are a unit each.
set(calling include/mole/c/calls.cpp include/mole/c/errors.cpp include/mole/c/layer.cpp include/mole/c/numbers.cpp
            include/mole/c/option_text.cpp include/mole/c/presets.cpp include/mole/c/training.cpp)
add_library(mole_c_objects OBJECT ${calling} include/mole/c/block_presets.cpp include/mole/c/lora_mixture_presets.cpp include/mole/c/other_expert_presets.cpp
            include/mole/c/shared_pool_presets.cpp include/mole/c/single_adapter_presets.cpp)
set_target_properties(mole_c_objects PROPERTIES POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden
                                                VISIBILITY_INLINES_HIDDEN ON UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
set_source_files_properties(${calling} PROPERTIES UNITY_GROUP calling)
target_link_libraries(mole_c_objects PRIVATE mole::mole nlohmann_json::nlohmann_json)
if(TARGET mole_dev)
  target_link_libraries(mole_c_objects PRIVATE mole_dev)
elseif(MOLE_ARCH)
  target_compile_options(mole_c_objects PRIVATE "-march=${MOLE_ARCH}")
endif()
if(MOLE_BUILD_TESTS OR MOLE_TEST_EXAMPLES)
  # Most of the time of its tests is compiling. Behind mole_dev, whose sanitizers want -O1, which takes four times as long.
  add_library(mole_c_for_tests INTERFACE)
  target_compile_options(mole_c_for_tests INTERFACE -O0)
  target_link_libraries(mole_c_objects PRIVATE mole_c_for_tests)
  message(STATUS "mole: mole::c is compiled for tests, without optimization; for use, configure with MOLE_BUILD_TESTS and MOLE_TEST_EXAMPLES off")
endif()

foreach(kind IN ITEMS static shared)
  string(TOUPPER ${kind} type)
  add_library(mole_c_${kind} ${type} $<TARGET_OBJECTS:mole_c_objects>)
  add_library(mole::c_${kind} ALIAS mole_c_${kind})
  set_target_properties(mole_c_${kind} PROPERTIES OUTPUT_NAME mole_c EXPORT_NAME c_${kind} LINKER_LANGUAGE CXX)
  target_sources(mole_c_${kind} PUBLIC FILE_SET HEADERS BASE_DIRS include FILES include/mole/c/mole.h)
  target_link_libraries(mole_c_${kind} PRIVATE Threads::Threads)
  if(MOLE_SANITIZE)
    target_link_options(mole_c_${kind} PUBLIC -fsanitize=${MOLE_SANITIZE})
  endif()
endforeach()
set_target_properties(mole_c_shared PROPERTIES VERSION ${PROJECT_VERSION}
                                               SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
if(CMAKE_EXECUTABLE_FORMAT STREQUAL "ELF")
  # Templates of the standard library are visible, whatever the flags.
  set(map "${CMAKE_CURRENT_LIST_DIR}/mole_c.map")
  target_link_options(mole_c_shared PRIVATE "LINKER:--version-script=${map}")
  set_target_properties(mole_c_shared PROPERTIES LINK_DEPENDS "${map}")
endif()

if(BUILD_SHARED_LIBS)
  add_library(mole::c ALIAS mole_c_shared)
else()
  add_library(mole::c ALIAS mole_c_static)
endif()
