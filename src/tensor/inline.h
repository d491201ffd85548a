// BAKESTONE_INLINE marks the small functions of headers that kernels include. An object compiled
// for a newer CPU must hold no weak symbol, or the linker may choose its copy for the baseline
// program; a plain `inline` leaves one at -O0, an always-inlined function never does.
#pragma once

#define BAKESTONE_INLINE [[gnu::always_inline]] inline
