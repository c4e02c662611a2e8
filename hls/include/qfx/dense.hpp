// SPDX-License-Identifier: Apache-2.0
/// \file
/// The fully connected layer and the flattening before it.
#ifndef QFX_DENSE_HPP_
#define QFX_DENSE_HPP_

#include "hls_stream.h"
#include "code.hpp"
#include "multiply.hpp"

namespace qfx {

/// y[o] = bias(o) + sum over i of x[i] * weight(i * channels_out + o), in codes, exact; for the driver `map`.
/// \tparam CONFIG_T channels_in, channels_out, static constants weight(int), bias(int).
template <class CONFIG_T> struct Dense {
    typedef CONFIG_T config;
    template <class X, class Y> static void pixel(const X &x, Y &y) {
        #pragma HLS INLINE
    Output:
        for (int o = 0; o < CONFIG_T::channels_out; ++o) {
            #pragma HLS UNROLL
            typedef typename Code<Element<Y>>::type sum_T;
            sum_T sum = CONFIG_T::bias(o);
        Input:
            for (int i = 0; i < CONFIG_T::channels_in; ++i) { // invariant: sum holds the first i products and the bias
                #pragma HLS UNROLL
                sum += times<sum_T>(code_of(x[i]), CONFIG_T::weight(i * CONFIG_T::channels_out + o));
            }
            y[o] = word_of<Element<Y>>(sum);
        }
    }
};

/// One word of pixels * channels elements from `pixels` words: height, width, channel order.
/// \tparam CONFIG_T pixels, channels_in.
template <class CONFIG_T, class in_T, class res_T> void flatten(hls::stream<in_T> &in, hls::stream<res_T> &out) {
    res_T y;
Pixel:
    for (int p = 0; p < CONFIG_T::pixels; ++p) { // invariant: the first p pixels stand in y
        #pragma HLS PIPELINE II=1
        const in_T x = in.read();
    Channel:
        for (int c = 0; c < CONFIG_T::channels_in; ++c) {
            #pragma HLS UNROLL
            y[p * CONFIG_T::channels_in + c] = x[c];
        }
    }
    out.write(y);
}

template <class CONFIG_T, class in_T, class res_T> void flatten(const in_T *in, res_T *out) {
    #pragma HLS INLINE
Element:
    for (int i = 0; i < CONFIG_T::pixels * CONFIG_T::channels_in; ++i) {
        #pragma HLS UNROLL
        out[i] = in[i];
    }
}

} // namespace qfx

#endif
