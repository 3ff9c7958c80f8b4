// SPDX-License-Identifier: MIT
// MOLE_TEST_ADDRESS_SANITIZER, MOLE_TEST_THREAD_SANITIZER: is the test built with one? g++ and clang say so
// differently.
#pragma once

#if defined(__has_feature)
#define MOLE_TEST_HAS_FEATURE(feature) __has_feature(feature)
#else
#define MOLE_TEST_HAS_FEATURE(feature) 0
#endif

#if defined(__SANITIZE_ADDRESS__) || MOLE_TEST_HAS_FEATURE(address_sanitizer)
#define MOLE_TEST_ADDRESS_SANITIZER 1
#else
#define MOLE_TEST_ADDRESS_SANITIZER 0
#endif
#if defined(__SANITIZE_THREAD__) || MOLE_TEST_HAS_FEATURE(thread_sanitizer)
#define MOLE_TEST_THREAD_SANITIZER 1
#else
#define MOLE_TEST_THREAD_SANITIZER 0
#endif
