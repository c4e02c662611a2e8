// SPDX-License-Identifier: Apache-2.0
// What ap_fixed itself makes of every code of some formats, in all rounding and overflow modes.
//
// cases.inc lists PAIR(source width, frac, signed, target width, frac, signed) and REAL(target width, frac, signed). For each
// line, rounding mode, overflow mode and source, in this order, the program prints the target code. The sources of a pair
// are all codes in the order of their bits; those of a real are the doubles k/8 target steps, k = -200 .. 200.
#include <ap_fixed.h>
#include <ap_int.h>
#include <cmath>
#include <cstdio>

template <int W, int F, bool S, ap_q_mode Q, ap_o_mode O> struct Word {
    typedef ap_fixed<W, W - F, Q, O> type;
    typedef ap_int<W> code_T;
};

template <int W, int F, ap_q_mode Q, ap_o_mode O> struct Word<W, F, false, Q, O> {
    typedef ap_ufixed<W, W - F, Q, O> type;
    typedef ap_uint<W> code_T;
};

template <class TARGET> void print(const typename TARGET::type &word) {
    typename TARGET::code_T code;
    code.range() = word.range();
    std::printf("%d\n", int(code));
}

template <class SOURCE, class TARGET> void convert_all(int width) {
    for (int bits = 0; bits < 1 << width; ++bits) {
        typename SOURCE::type x;
        x.range() = bits;
        const typename TARGET::type y = x;
        print<TARGET>(y);
    }
}

template <class TARGET> void convert_reals(int frac) {
    for (int k = -200; k <= 200; ++k) {
        const typename TARGET::type y = std::ldexp(k, -3 - frac);
        print<TARGET>(y);
    }
}

#define OVERFLOWS(CONVERT, Q)                                                                                               \
    CONVERT(Q, AP_WRAP)                                                                                                     \
    CONVERT(Q, AP_SAT)                                                                                                      \
    CONVERT(Q, AP_SAT_ZERO)                                                                                                 \
    CONVERT(Q, AP_SAT_SYM)

#define MODES(CONVERT)                                                                                                      \
    OVERFLOWS(CONVERT, AP_TRN)                                                                                              \
    OVERFLOWS(CONVERT, AP_TRN_ZERO)                                                                                         \
    OVERFLOWS(CONVERT, AP_RND)                                                                                              \
    OVERFLOWS(CONVERT, AP_RND_ZERO)                                                                                         \
    OVERFLOWS(CONVERT, AP_RND_INF)                                                                                          \
    OVERFLOWS(CONVERT, AP_RND_MIN_INF)                                                                                      \
    OVERFLOWS(CONVERT, AP_RND_CONV)

template <class SOURCE, int W, int F, bool S> void pair(int width) {
#define FROM_CODES(Q, O) convert_all<SOURCE, Word<W, F, S, Q, O>>(width);
    MODES(FROM_CODES)
}

template <int W, int F, bool S> void real() {
#define FROM_REALS(Q, O) convert_reals<Word<W, F, S, Q, O>>(F);
    MODES(FROM_REALS)
}

#define PAIR(W1, F1, S1, W2, F2, S2) pair<Word<W1, F1, S1, AP_TRN, AP_WRAP>, W2, F2, S2>(W1);
#define REAL(W, F, S) real<W, F, S>();

int main() {
#include "cases.inc"
    return 0;
}
