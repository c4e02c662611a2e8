// SPDX-License-Identifier: Apache-2.0
/// \file
/// Pooling kernels for the driver `window`; windows may overlap and reach into the padding.
#ifndef QFX_POOL_HPP_
#define QFX_POOL_HPP_

#include "code.hpp"

namespace qfx {

/// Visits the taps of one window that lie inside the image: reduce(source.code(...)) for each.
template <class CONFIG_T, class SOURCE, class sum_T, class REDUCE>
sum_T pool(const SOURCE &source, int row, int col, int channel, sum_T start, REDUCE reduce) {
    #pragma HLS INLINE
    sum_T result = start;
Tap:
    for (int tap = 0; tap < CONFIG_T::kernel_rows * CONFIG_T::kernel_cols; ++tap) { // invariant: taps below are reduced
        #pragma HLS UNROLL
        const int y_in = row * CONFIG_T::stride_row - CONFIG_T::pad_top + tap / CONFIG_T::kernel_cols;
        const int x_in = col * CONFIG_T::stride_col - CONFIG_T::pad_left + tap % CONFIG_T::kernel_cols;
        if (source.inside(y_in, x_in)) {
            result = reduce(result, sum_T(source.code(y_in, x_in, channel)));
        }
    }
    return result;
}

struct Larger {
    template <class T> T operator()(const T &a, const T &b) const { return a > b ? a : b; }
};

struct Sum {
    template <class T> T operator()(const T &a, const T &b) const { return a + b; }
};

/// y[c] = the largest code in the window; padding is the smallest code of the format.
/// \tparam CONFIG_T kernel_*, stride_*, pad_top, pad_left, channels_out, min_code.
template <class CONFIG_T> struct MaxPool {
    typedef CONFIG_T config;
    template <class SOURCE, class Y> static void pixel(const SOURCE &source, int row, int col, Y &y) {
        #pragma HLS INLINE
    Channel:
        for (int c = 0; c < CONFIG_T::channels_out; ++c) {
            #pragma HLS UNROLL
            typedef typename Code<Element<Y>>::type code_T;
            y[c] = word_of<Element<Y>>(
                pool<CONFIG_T>(source, row, col, c, code_T(CONFIG_T::min_code), Larger()));
        }
    }
};

/// y[c] = the sum of the codes in the window, exact; padding is 0.
/// \tparam CONFIG_T kernel_*, stride_*, pad_top, pad_left, channels_out.
template <class CONFIG_T> struct SumPool {
    typedef CONFIG_T config;
    template <class SOURCE, class Y> static void pixel(const SOURCE &source, int row, int col, Y &y) {
        #pragma HLS INLINE
    Channel:
        for (int c = 0; c < CONFIG_T::channels_out; ++c) {
            #pragma HLS UNROLL
            typedef typename Code<Element<Y>>::type code_T;
            y[c] = word_of<Element<Y>>(pool<CONFIG_T>(source, row, col, c, code_T(0), Sum()));
        }
    }
};

} // namespace qfx

#endif
