// SPDX-License-Identifier: Apache-2.0
/// \file
/// Convolution kernels for the driver `window`: plain, grouped, dilated, depthwise, and deformable.
#ifndef QFX_CONV_HPP_
#define QFX_CONV_HPP_

#include "code.hpp"
#include "multiply.hpp"

namespace qfx {

/// y[o] = bias(o) + sum over ky, kx, i of
///        x(row * stride_row - pad_top + ky * dilation_row, col * stride_col - pad_left + kx * dilation_col, g + i)
///        * weight(ky, kx, i, o), in codes, exact; g is the first input channel of o's group; outside the image x is 0.
/// \tparam CONFIG_T kernel_rows, kernel_cols, stride_*, dilation_*, pad_top, pad_left, channels_in, channels_out, groups,
///   static constants weight(int) with o running fastest, then i, kx, ky, and bias(int).
template <class CONFIG_T> struct Conv2d {
    typedef CONFIG_T config;
    static constexpr int group_in = CONFIG_T::channels_in / CONFIG_T::groups;
    static constexpr int group_out = CONFIG_T::channels_out / CONFIG_T::groups;
    static_assert(group_in * CONFIG_T::groups == CONFIG_T::channels_in, "groups must divide channels_in");
    static_assert(group_out * CONFIG_T::groups == CONFIG_T::channels_out, "groups must divide channels_out");

    template <class SOURCE, class Y> static void pixel(const SOURCE &source, int row, int col, Y &y) {
        #pragma HLS INLINE
        typedef typename Code<Element<Y>>::type sum_T;
        sum_T sums[CONFIG_T::channels_out];
        #pragma HLS ARRAY_PARTITION variable=sums complete
    Bias:
        for (int o = 0; o < CONFIG_T::channels_out; ++o) {
            #pragma HLS UNROLL
            sums[o] = CONFIG_T::bias(o);
        }
    Tap:
        for (int tap = 0; tap < CONFIG_T::kernel_rows * CONFIG_T::kernel_cols; ++tap) { // invariant: taps below are summed
            #pragma HLS UNROLL
            const int ky = tap / CONFIG_T::kernel_cols, kx = tap % CONFIG_T::kernel_cols;
            const int y_in = row * CONFIG_T::stride_row - CONFIG_T::pad_top + ky * CONFIG_T::dilation_row;
            const int x_in = col * CONFIG_T::stride_col - CONFIG_T::pad_left + kx * CONFIG_T::dilation_col;
            if (source.inside(y_in, x_in)) {
                accumulate(source, y_in, x_in, tap, sums);
            }
        }
    Result:
        for (int o = 0; o < CONFIG_T::channels_out; ++o) {
            #pragma HLS UNROLL
            y[o] = word_of<Element<Y>>(sums[o]);
        }
    }

  private:
    template <class SOURCE, class sum_T>
    static void accumulate(const SOURCE &source, int row, int col, int tap, sum_T (&sums)[CONFIG_T::channels_out]) {
        #pragma HLS INLINE
    Input:
        for (int c = 0; c < CONFIG_T::channels_in; ++c) {
            #pragma HLS UNROLL
            const auto x = source.code(row, col, c);
            const int first = c / group_in * group_out;
        Output:
            for (int o = first; o < first + group_out; ++o) {
                #pragma HLS UNROLL
                sums[o] += times<sum_T>(x, CONFIG_T::weight((tap * group_in + c % group_in) * CONFIG_T::channels_out + o));
            }
        }
    }
};

/// y[c] = bias(c) + sum over ky, kx in 0..2 of x(row + (ky - 1) * d, col + (kx - 1) * d, c) * weight(ky, kx, c), in codes,
/// exact; d is the offset at the output pixel (one integer dilation a pixel: the *square* form, Huang et al., CoDeNet,
/// arXiv 2006.08357); outside the image x is 0.
///
/// The offset is used as it comes: the graph's verifier proves that it lies in 0..D, and the ring holds 2 D + 2 rows.
/// \tparam CONFIG_T channels_out, static constants weight(int) with c running fastest, then kx, ky, and bias(int).
template <class CONFIG_T> struct DeformConv2d {
    typedef CONFIG_T config;

    template <class SOURCE, class Y, class OFFSET>
    static void pixel(const SOURCE &source, int row, int col, Y &y, const OFFSET &offset) {
        #pragma HLS INLINE
        typedef typename Code<Element<Y>>::type sum_T;
        const int d = code_of(offset[0]);
    Channel:
        for (int c = 0; c < CONFIG_T::channels_out; ++c) {
            #pragma HLS UNROLL
            sum_T sum = CONFIG_T::bias(c);
        Tap:
            for (int tap = 0; tap < 9; ++tap) { // invariant: the taps below are summed
                #pragma HLS UNROLL
                const int y_in = row + (tap / 3 - 1) * d, x_in = col + (tap % 3 - 1) * d;
                if (source.inside(y_in, x_in)) {
                    sum += times<sum_T>(source.code(y_in, x_in, c), CONFIG_T::weight(tap * CONFIG_T::channels_out + c));
                }
            }
            y[c] = word_of<Element<Y>>(sum);
        }
    }
};

} // namespace qfx

#endif
