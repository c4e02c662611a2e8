// SPDX-License-Identifier: Apache-2.0
/// \file
/// Larger images, and parts of images: upsampling to the nearest neighbour, depth to space, slices.
#ifndef QFX_UPSAMPLE_HPP_
#define QFX_UPSAMPLE_HPP_

#include "hls_stream.h"
#include "code.hpp"

namespace qfx {

/// y(row, col) = x(row / repeat_rows, col / repeat_cols), quotients rounded down; a row is kept until it has been repeated.
/// \tparam CONFIG_T in_height, in_width, channels_in, repeat_rows, repeat_cols.
template <class CONFIG_T, class in_T, class res_T> void upsample(hls::stream<in_T> &in, hls::stream<res_T> &out) {
    res_T line[CONFIG_T::in_width];
Row:
    for (int row = 0; row < CONFIG_T::in_height; ++row) { // invariant: row rows were read, repeat_rows times as many written
    Line:
        for (int again = 0; again < CONFIG_T::repeat_rows; ++again) {
        Pixel:
            for (int col = 0; col < CONFIG_T::in_width; ++col) {
            Copy:
                for (int copy = 0; copy < CONFIG_T::repeat_cols; ++copy) {
                    #pragma HLS PIPELINE II=1
                    if (again == 0 && copy == 0) {
                        const in_T x = in.read();
                    Channel:
                        for (int c = 0; c < CONFIG_T::channels_in; ++c) {
                            #pragma HLS UNROLL
                            line[col][c] = x[c];
                        }
                    }
                    out.write(line[col]);
                }
            }
        }
    }
}

template <class CONFIG_T, class in_T, class res_T> void upsample(const in_T *in, res_T *out) {
    #pragma HLS INLINE
    static constexpr int out_width = CONFIG_T::in_width * CONFIG_T::repeat_cols;
Row:
    for (int row = 0; row < CONFIG_T::in_height * CONFIG_T::repeat_rows; ++row) {
        #pragma HLS UNROLL
    Pixel:
        for (int col = 0; col < out_width; ++col) {
            #pragma HLS UNROLL
            const int x = row / CONFIG_T::repeat_rows * CONFIG_T::in_width + col / CONFIG_T::repeat_cols;
        Channel:
            for (int c = 0; c < CONFIG_T::channels_in; ++c) {
                #pragma HLS UNROLL
                out[(row * out_width + col) * CONFIG_T::channels_in + c] = in[x * CONFIG_T::channels_in + c];
            }
        }
    }
}

/// y(row * rows + i, col * cols + j)[c] = x(row, col)[(i * cols + j) * channels_out + c]; a row is kept until its blocks are out.
/// \tparam CONFIG_T in_height, in_width, channels_in, channels_out, block_rows, block_cols.
template <class CONFIG_T, class in_T, class res_T> void depth_to_space(hls::stream<in_T> &in, hls::stream<res_T> &out) {
    in_T line[CONFIG_T::in_width];
Row:
    for (int row = 0; row < CONFIG_T::in_height; ++row) { // invariant: row rows were read, block_rows times as many written
    Line:
        for (int i = 0; i < CONFIG_T::block_rows; ++i) {
        Pixel:
            for (int col = 0; col < CONFIG_T::in_width; ++col) {
            Part:
                for (int j = 0; j < CONFIG_T::block_cols; ++j) {
                    #pragma HLS PIPELINE II=1
                    if (i == 0 && j == 0) line[col] = in.read();
                    res_T y;
                Channel:
                    for (int c = 0; c < CONFIG_T::channels_out; ++c) {
                        #pragma HLS UNROLL
                        const int from = (i * CONFIG_T::block_cols + j) * CONFIG_T::channels_out + c;
                        y[c] = word_of<Element<res_T>>(typename Code<Element<res_T>>::type(code_of(line[col][from])));
                    }
                    out.write(y);
                }
            }
        }
    }
}

template <class CONFIG_T, class in_T, class res_T> void depth_to_space(const in_T *in, res_T *out) {
    #pragma HLS INLINE
    static constexpr int out_width = CONFIG_T::in_width * CONFIG_T::block_cols;
Row:
    for (int row = 0; row < CONFIG_T::in_height * CONFIG_T::block_rows; ++row) {
        #pragma HLS UNROLL
    Pixel:
        for (int col = 0; col < out_width; ++col) {
            #pragma HLS UNROLL
            const int x = row / CONFIG_T::block_rows * CONFIG_T::in_width + col / CONFIG_T::block_cols;
            const int part = row % CONFIG_T::block_rows * CONFIG_T::block_cols + col % CONFIG_T::block_cols;
        Channel:
            for (int c = 0; c < CONFIG_T::channels_out; ++c) {
                #pragma HLS UNROLL
                const in_T code = in[x * CONFIG_T::channels_in + part * CONFIG_T::channels_out + c];
                out[(row * out_width + col) * CONFIG_T::channels_out + c] =
                    word_of<res_T>(typename Code<res_T>::type(code_of(code)));
            }
        }
    }
}

/// y(row, col) = x(first_row + row * step_rows, first_col + col * step_cols); the other pixels are dropped.
/// \tparam CONFIG_T in_height, in_width, channels_in, out_height, out_width, first_row, first_col, step_rows, step_cols.
template <class CONFIG_T, class in_T, class res_T> void slice(hls::stream<in_T> &in, hls::stream<res_T> &out) {
Row:
    for (int row = 0; row < CONFIG_T::in_height; ++row) {
    Pixel:
        for (int col = 0; col < CONFIG_T::in_width; ++col) { // invariant: all kept pixels before (row, col) were written
            #pragma HLS PIPELINE II=1
            const in_T x = in.read();
            const int y_row = row - CONFIG_T::first_row, y_col = col - CONFIG_T::first_col;
            const bool rows = y_row >= 0 && y_row % CONFIG_T::step_rows == 0 && y_row / CONFIG_T::step_rows < CONFIG_T::out_height;
            const bool cols = y_col >= 0 && y_col % CONFIG_T::step_cols == 0 && y_col / CONFIG_T::step_cols < CONFIG_T::out_width;
            if (rows && cols) {
                res_T y;
            Channel:
                for (int c = 0; c < CONFIG_T::channels_in; ++c) {
                    #pragma HLS UNROLL
                    y[c] = x[c];
                }
                out.write(y);
            }
        }
    }
}

template <class CONFIG_T, class in_T, class res_T> void slice(const in_T *in, res_T *out) {
    #pragma HLS INLINE
Row:
    for (int row = 0; row < CONFIG_T::out_height; ++row) {
        #pragma HLS UNROLL
    Pixel:
        for (int col = 0; col < CONFIG_T::out_width; ++col) {
            #pragma HLS UNROLL
            const int x = (CONFIG_T::first_row + row * CONFIG_T::step_rows) * CONFIG_T::in_width + CONFIG_T::first_col +
                          col * CONFIG_T::step_cols;
        Channel:
            for (int c = 0; c < CONFIG_T::channels_in; ++c) {
                #pragma HLS UNROLL
                out[(row * CONFIG_T::out_width + col) * CONFIG_T::channels_in + c] = in[x * CONFIG_T::channels_in + c];
            }
        }
    }
}

} // namespace qfx

#endif
