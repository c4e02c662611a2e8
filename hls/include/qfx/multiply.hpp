// SPDX-License-Identifier: Apache-2.0
/// \file
/// Products of a code and a code or constant: with a multiplier, or as a sum of shifts (K-hot constants).
#ifndef QFX_MULTIPLY_HPP_
#define QFX_MULTIPLY_HPP_

namespace qfx {

/// A constant as a sum of signed powers of two: sum over k of sign[k] * 2^shift[k].
/// \tparam K number of digits; an unused one has sign 0.
template <int K> struct Digits {
    signed char sign[K];
    unsigned char shift[K];
};

/// a * w, modulo 2^width of A.
/// \tparam A integer type of the result; the caller proves that the sum it belongs to fits.
template <class A, class X, class W> A times(const X &a, const W &w) {
    #pragma HLS INLINE
    return A(a * w);
}

/// a * w without a multiplier: one shift and one addition a digit, modulo 2^width of A.
template <class A, class X, int K> A times(const X &a, const Digits<K> &w) {
    #pragma HLS INLINE
    A sum = 0;
Digit:
    for (int k = 0; k < K; ++k) { // invariant: sum is the product with the first k digits
        #pragma HLS UNROLL
        const A term = A(a) << w.shift[k];
        if (w.sign[k] > 0) {
            sum += term;
        } else if (w.sign[k] < 0) {
            sum -= term;
        }
    }
    return sum;
}

} // namespace qfx

#endif
