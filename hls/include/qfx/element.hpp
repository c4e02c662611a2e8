// SPDX-License-Identifier: Apache-2.0
/// \file
/// Kernels that treat each element by itself, for the drivers `map` and `join`.
#ifndef QFX_ELEMENT_HPP_
#define QFX_ELEMENT_HPP_

#include "code.hpp"
#include "multiply.hpp"

namespace qfx {

/// y[c] = overflow(round(x[c] * 2^f_out)) * 2^-f_out, by the modes of the result type.
///
/// The input type carries the largest of the channels' binary points; shift(c) is how far channel c stays below it, so
/// `x * 2^shift(c)` is exact in a type that is `spare` bits wider, and the assignment to the result type does the rounding.
/// \tparam CONFIG_T channels_out, static int shift(int c), spare (at least the largest shift, and so many that the widened
///   input has more bits than the assignment drops: the ap_fixed headers end a simulation that drops more).
template <class CONFIG_T> struct Requantize {
    typedef CONFIG_T config;
    template <class X, class Y> static void pixel(const X &x, Y &y) {
        #pragma HLS INLINE
    Channel:
        for (int c = 0; c < CONFIG_T::channels_out; ++c) {
            #pragma HLS UNROLL
            typedef typename Widened<Element<X>, CONFIG_T::spare>::type aligned_T;
            typedef typename Code<aligned_T>::type code_T;
            y[c] = word_of<aligned_T>(code_T(code_T(code_of(x[c])) << CONFIG_T::shift(c)));
        }
    }
};

/// y[c] = min(max(x[c], low), high), bounds given as codes; the binary point stays.
/// \tparam CONFIG_T channels_out, low, high.
template <class CONFIG_T> struct Clamp {
    typedef CONFIG_T config;
    template <class X, class Y> static void pixel(const X &x, Y &y) {
        #pragma HLS INLINE
    Channel:
        for (int c = 0; c < CONFIG_T::channels_out; ++c) {
            #pragma HLS UNROLL
            typedef typename Code<Element<X>>::type code_T;
            const code_T code = code_of(x[c]), low = CONFIG_T::low, high = CONFIG_T::high;
            const code_T raised = code < low ? low : code;
            y[c] = word_of<Element<Y>>(raised > high ? high : raised);
        }
    }
};

/// y[c] = table(x[c] - lowest), in codes: a function by its values at every code of x, in their order.
/// \tparam CONFIG_T channels_out, lowest (the lowest code of x's format), static constants table(int i).
template <class CONFIG_T> struct Lookup {
    typedef CONFIG_T config;
    template <class X, class Y> static void pixel(const X &x, Y &y) {
        #pragma HLS INLINE
    Channel:
        for (int c = 0; c < CONFIG_T::channels_out; ++c) {
            #pragma HLS UNROLL
            const int place = int(code_of(x[c])) - CONFIG_T::lowest;
            y[c] = word_of<Element<Y>>(typename Code<Element<Y>>::type(CONFIG_T::table(place)));
        }
    }
};

/// y[c] = x[c] * scale(c) + shift(c), in codes, exact: a fixed-point batch normalisation.
/// \tparam CONFIG_T channels_out, static constants scale(int c), shift(int c).
template <class CONFIG_T> struct Affine {
    typedef CONFIG_T config;
    template <class X, class Y> static void pixel(const X &x, Y &y) {
        #pragma HLS INLINE
    Channel:
        for (int c = 0; c < CONFIG_T::channels_out; ++c) {
            #pragma HLS UNROLL
            typedef typename Code<Element<Y>>::type sum_T;
            sum_T sum = times<sum_T>(code_of(x[c]), CONFIG_T::scale(c));
            sum += sum_T(CONFIG_T::shift(c));
            y[c] = word_of<Element<Y>>(sum);
        }
    }
};

/// y[c] = a[c] + b[c]; the types carry the binary points, and the result type holds the exact sum.
/// \tparam CONFIG_T channels_out.
template <class CONFIG_T> struct Add {
    typedef CONFIG_T config;
    template <class A, class B, class Y> static void pixel(const A &a, const B &b, Y &y) {
        #pragma HLS INLINE
    Channel:
        for (int c = 0; c < CONFIG_T::channels_out; ++c) {
            #pragma HLS UNROLL
            y[c] = a[c] + b[c];
        }
    }
};

/// y[c] = a[c] * b[c], in codes, exact.
/// \tparam CONFIG_T channels_out.
template <class CONFIG_T> struct Multiply {
    typedef CONFIG_T config;
    template <class A, class B, class Y> static void pixel(const A &a, const B &b, Y &y) {
        #pragma HLS INLINE
    Channel:
        for (int c = 0; c < CONFIG_T::channels_out; ++c) {
            #pragma HLS UNROLL
            typedef typename Code<Element<Y>>::type product_T;
            y[c] = word_of<Element<Y>>(times<product_T>(code_of(a[c]), code_of(b[c])));
        }
    }
};

/// y[0] = max over c of x[c].
/// \tparam CONFIG_T channels_in.
template <class CONFIG_T> struct ChannelMax {
    typedef CONFIG_T config;
    template <class X, class Y> static void pixel(const X &x, Y &y) {
        #pragma HLS INLINE
        typename Code<Element<X>>::type largest = code_of(x[0]);
    Channel:
        for (int c = 1; c < CONFIG_T::channels_in; ++c) { // invariant: largest of the first c channels
            #pragma HLS UNROLL
            const typename Code<Element<X>>::type code = code_of(x[c]);
            largest = code > largest ? code : largest;
        }
        y[0] = word_of<Element<Y>>(largest);
    }
};

/// y[0] = sum over c of x[c], in codes, exact.
/// \tparam CONFIG_T channels_in.
template <class CONFIG_T> struct ChannelSum {
    typedef CONFIG_T config;
    template <class X, class Y> static void pixel(const X &x, Y &y) {
        #pragma HLS INLINE
        typedef typename Code<Element<Y>>::type sum_T;
        sum_T sum = 0;
    Channel:
        for (int c = 0; c < CONFIG_T::channels_in; ++c) { // invariant: sum of the first c channels
            #pragma HLS UNROLL
            sum += sum_T(code_of(x[c]));
        }
        y[0] = word_of<Element<Y>>(sum);
    }
};

/// y[c] = x[channel(c)], and 0 where channel(c) is -1: the codes as they are, each with its binary point.
/// \tparam CONFIG_T channels_out, static constants channel(int c).
template <class CONFIG_T> struct Select {
    typedef CONFIG_T config;
    template <class X, class Y> static void pixel(const X &x, Y &y) {
        #pragma HLS INLINE
        typedef typename Code<Element<Y>>::type code_T;
    Channel:
        for (int c = 0; c < CONFIG_T::channels_out; ++c) {
            #pragma HLS UNROLL
            const int from = CONFIG_T::channel(c);
            y[c] = word_of<Element<Y>>(from < 0 ? code_T(0) : code_T(code_of(x[from])));
        }
    }
};

/// y[c] = a[c] below channels_a, b[c - channels_a] from there on: the codes as they are, each channel with its binary point.
/// \tparam CONFIG_T channels_a, channels_out.
template <class CONFIG_T> struct Concat {
    typedef CONFIG_T config;
    template <class A, class B, class Y> static void pixel(const A &a, const B &b, Y &y) {
        #pragma HLS INLINE
        typedef typename Code<Element<Y>>::type code_T;
    First:
        for (int c = 0; c < CONFIG_T::channels_a; ++c) {
            #pragma HLS UNROLL
            y[c] = word_of<Element<Y>>(code_T(code_of(a[c])));
        }
    Second:
        for (int c = CONFIG_T::channels_a; c < CONFIG_T::channels_out; ++c) {
            #pragma HLS UNROLL
            y[c] = word_of<Element<Y>>(code_T(code_of(b[c - CONFIG_T::channels_a])));
        }
    }
};

} // namespace qfx

#endif
