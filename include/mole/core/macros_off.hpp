// SPDX-License-Identifier: MIT
// Hides macros of the host whose names mole uses, until macros_on.hpp: those of <windows.h>, <complex.h> and C code. Every header
// includes both, around what it declares, and may do so many times.

#if defined(__GNUC__) || defined(_MSC_VER)
#pragma push_macro("min")
#pragma push_macro("max")
#pragma push_macro("near")
#pragma push_macro("far")
#pragma push_macro("E")
#pragma push_macro("I")
#pragma push_macro("K")
#pragma push_macro("M")
#pragma push_macro("N")
#pragma push_macro("O")
#pragma push_macro("R")
#pragma push_macro("T")
#pragma push_macro("V")
#endif
#undef min
#undef max
#undef near
#undef far
#undef E
#undef I
#undef K
#undef M
#undef N
#undef O
#undef R
#undef T
#undef V
