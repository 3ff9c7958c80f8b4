// SPDX-License-Identifier: MIT
// Ends what macros_off.hpp began.

#if defined(__GNUC__) || defined(_MSC_VER)
#pragma pop_macro("min")
#pragma pop_macro("max")
#pragma pop_macro("near")
#pragma pop_macro("far")
#pragma pop_macro("E")
#pragma pop_macro("I")
#pragma pop_macro("K")
#pragma pop_macro("M")
#pragma pop_macro("N")
#pragma pop_macro("O")
#pragma pop_macro("R")
#pragma pop_macro("T")
#pragma pop_macro("V")
#endif
