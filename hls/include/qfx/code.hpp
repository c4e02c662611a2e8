// SPDX-License-Identifier: Apache-2.0
/// \file
/// Between fixed-point words and their integer codes: value = code * 2^-frac.
#ifndef QFX_CODE_HPP_
#define QFX_CODE_HPP_

#include "ap_fixed.h"
#include "ap_int.h"
#include <type_traits>
#include <utility>

namespace qfx {

/// The integer type of the codes of a fixed-point type: the same bits, the binary point at 0.
/// \tparam T an ap_fixed, ap_ufixed, ap_int or ap_uint type.
template <class T> struct Code;

template <int W, int I, ap_q_mode Q, ap_o_mode O, int N> struct Code<ap_fixed<W, I, Q, O, N>> {
    typedef ap_int<W> type;
    static const int width = W;
};

template <int W, int I, ap_q_mode Q, ap_o_mode O, int N> struct Code<ap_ufixed<W, I, Q, O, N>> {
    typedef ap_uint<W> type;
    static const int width = W;
};

/// The same type with S more integer bits, and without rounding or saturation.
template <class T, int S> struct Widened;

template <int W, int I, ap_q_mode Q, ap_o_mode O, int N, int S> struct Widened<ap_fixed<W, I, Q, O, N>, S> {
    typedef ap_fixed<W + S, I + S> type;
};

template <int W, int I, ap_q_mode Q, ap_o_mode O, int N, int S> struct Widened<ap_ufixed<W, I, Q, O, N>, S> {
    typedef ap_ufixed<W + S, I + S> type;
};

/// The type of one element of a stream word or of an array.
template <class X> using Element = typename std::decay<decltype(std::declval<X &>()[0])>::type;

/// code(x) = x * 2^frac: the bits of the word, read as an integer.
template <class T> typename Code<T>::type code_of(const T &word) {
    #pragma HLS INLINE
    return typename Code<T>::type(ap_uint<Code<T>::width>(word.range(Code<T>::width - 1, 0)));
}

/// word(c) = c * 2^-frac: an integer's bits, read as a word; higher bits of the integer are dropped.
template <class T, class C> T word_of(const C &code) {
    #pragma HLS INLINE
    T word;
    word.range(Code<T>::width - 1, 0) = ap_uint<Code<T>::width>(code);
    return word;
}

} // namespace qfx

#endif
