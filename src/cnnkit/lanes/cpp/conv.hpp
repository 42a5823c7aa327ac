// Convolution; a dense layer is one over a single position. Weights as in torch: output x input x height x width.
#pragma once
#include "vector.hpp"

template <class In_, int OUT, int KY, int KX, int SY, int SX, int PY, int PX>
struct Conv {
    static constexpr int H = In_::H + 2 * PY, W = In_::W + 2 * PX;  // with padding
    using In = In_;
    using Out = Shape<OUT, (H - KY) / SY + 1, (W - KX) / SX + 1>;
    static constexpr int padded = PY || PX ? In::C * H * W : 0;
    static constexpr int row = In::C * KY * KX, positions = Out::area;
    static constexpr bool dense = !padded && KY == H && KX == W;  // one position, whose inputs are contiguous

    // offset[j]: from the first input of a position to the input of weight j
    static constexpr std::array<int, row> offset = [] {
        std::array<int, row> found{};
        for (int j = 0; j < row; j++) found[j] = (j / (KY * KX) * H + j / KX % KY) * W + j % KX;
        return found;
    }();
    static constexpr int start(int position) { return position / Out::W * SY * W + position % Out::W * SX; }

    // a tile of the output is tile_p positions x tile_c channels, one register each
    static constexpr int accumulators = REGISTERS * 3 / 4;
    static constexpr int max_positions = REGISTERS == 32 ? 4 : 2;
    static constexpr int tile_p = positions < max_positions ? positions : max_positions;
    static constexpr int tile_c = even_tile(OUT, accumulators / tile_p);

    static void pad(const v* x, v* to) {
        memset(to, 0, sizeof(v) * padded);
        for (int c = 0; c < In::C; c++)
            for (int y = 0; y < In::H; y++)
                memcpy(to + (c * H + y + PY) * W + PX, x + (c * In::H + y) * In::W, sizeof(v) * In::W);
    }

    template <int CT>
    static void tile(const v* x, v* y, const float* w, const float* b, int p) {
        const v* from[tile_p];
        UNROLL for (int t = 0; t < tile_p; t++) from[t] = x + start(p + t < positions ? p + t : positions - 1);
        v a[tile_p][CT];
        UNROLL for (int t = 0; t < tile_p; t++)
            UNROLL for (int c = 0; c < CT; c++) a[t][c] = b ? broadcast(b[c]) : v{};
        for (int i = 0; i < In::C * KY; i++) {
            const int at = (i / KY * H + i % KY) * W;
            UNROLL for (int k = 0; k < KX; k++) {
                v q[tile_p];
                UNROLL for (int t = 0; t < tile_p; t++) q[t] = from[t][at + k];
                UNROLL for (int c = 0; c < CT; c++) {
                    v weight = broadcast(w[c * row + i * KX + k]);
                    UNROLL for (int t = 0; t < tile_p; t++) a[t][c] += q[t] * weight;
                }
            }
        }
        UNROLL for (int t = 0; t < tile_p; t++)
            if (p + t < positions)
                UNROLL for (int c = 0; c < CT; c++) y[c * positions + p + t] = a[t][c];
    }

    // x: after `pad`
    static void forward(const v* x, v* y, const float* w, const float* b) {
        constexpr int whole = OUT / tile_c * tile_c, rest = OUT - whole;
        for (int p = 0; p < positions; p += tile_p) {
            for (int c = 0; c < whole; c += tile_c)
                tile<tile_c>(x, y + c * positions, w + c * row, b ? b + c : nullptr, p);
            if constexpr (rest > 0) tile<rest>(x, y + whole * positions, w + whole * row, b ? b + whole : nullptr, p);
        }
    }

    template <int N>
    static void scatter(const v* dy, v* dx, const float* w, int j, int p) {
        v a[N] = {};
        for (int c = 0; c < OUT; c++) {
            v e = dy[c * positions + p];
            UNROLL for (int n = 0; n < N; n++) a[n] += e * w[c * row + j + n];
        }
        v* to = dx + start(p);
        UNROLL for (int n = 0; n < N; n++) {
            if constexpr (dense) to[j + n] = a[n];
            else to[offset[j + n]] += a[n];
        }
    }

    // with padding, the gradient of the padded input is computed in `padded_dx` and dx is cut out of it
    static void input_gradient(const v* dy, v* dx, v* padded_dx, const float* w) {
        constexpr int part = even_tile(row, accumulators + 1), whole = row / part * part, rest = row - whole;
        v* to = padded ? padded_dx : dx;
        if constexpr (!dense) memset(to, 0, sizeof(v) * In::C * H * W);
        for (int j = 0; j < whole; j += part)
            for (int p = 0; p < positions; p++) scatter<part>(dy, to, w, j, p);
        if constexpr (rest > 0)
            for (int p = 0; p < positions; p++) scatter<rest>(dy, to, w, whole, p);
        if constexpr (padded > 0)
            for (int c = 0; c < In::C; c++)
                for (int y = 0; y < In::H; y++)
                    memcpy(dx + (c * In::H + y) * In::W, to + (c * H + y + PY) * W + PX, sizeof(v) * In::W);
    }

    template <int CT, int JT>
    static void weight_tile(const v* x, const v* dy, float* gw, int j) {
        v a[CT * JT] = {};
        const v* from[JT];
        UNROLL for (int k = 0; k < JT; k++) from[k] = x + offset[j + k];
        for (int oy = 0; oy < Out::H; oy++)
            for (int ox = 0; ox < Out::W; ox++) {
                const int p = oy * Out::W + ox, at = oy * SY * W + ox * SX;
                v e[CT];
                UNROLL for (int c = 0; c < CT; c++) e[c] = dy[c * positions + p];
                UNROLL for (int k = 0; k < JT; k++) {
                    v q = from[k][at];
                    UNROLL for (int c = 0; c < CT; c++) a[c * JT + k] += q * e[c];
                }
            }
        float s[CT * JT] = {};
        add_lane_sums<CT * JT>(a, s);
        UNROLL for (int c = 0; c < CT; c++)
            UNROLL for (int k = 0; k < JT; k++) gw[c * row + j + k] += s[c * JT + k];
    }

    template <int CT>
    static void weight_channels(const v* x, const v* dy, float* gw) {
        constexpr int part = even_tile(row, accumulators / CT), whole = row / part * part, rest = row - whole;
        for (int j = 0; j < whole; j += part) weight_tile<CT, part>(x, dy, gw, j);
        if constexpr (rest > 0) weight_tile<CT, rest>(x, dy, gw, whole);
    }

    // x: after `pad`
    static void weight_gradient(const v* x, const v* dy, float* gw, float* gb) {
        if constexpr (dense) {
            outer(x, dy, gw);
        } else {
            constexpr int part = even_tile(OUT, 4), whole = OUT / part * part, rest = OUT - whole;
            for (int c = 0; c < whole; c += part) weight_channels<part>(x, dy + c * positions, gw + c * row);
            if constexpr (rest > 0) weight_channels<rest>(x, dy + whole * positions, gw + whole * row);
        }
        if (gb)
            for (int c = 0; c < OUT; c++) {
                const v* from = dy + c * positions;
                v part[4] = {};  // four independent chains of additions
                int p = 0;
                for (; p + 4 <= positions; p += 4) UNROLL for (int i = 0; i < 4; i++) part[i] += from[p + i];
                for (; p < positions; p++) part[0] += from[p];
                gb[c] += sum(part[0] + part[1] + (part[2] + part[3]));
            }
    }

    // gw += dy x^T, with x transposed: a register holds LANES inputs of one image
    static void outer(const v* x, const v* dy, float* gw) {
        constexpr int whole = row / LANES, rest = row % LANES, wide = whole + (rest > 0);
        alignas(64) static thread_local v rows[LANES][wide];
        for (int k = 0; k < wide; k++) {
            v r[LANES];
            UNROLL for (int i = 0; i < LANES; i++) r[i] = k * LANES + i < row ? x[k * LANES + i] : v{};
            transpose(r);
            UNROLL for (int i = 0; i < LANES; i++) rows[i][k] = r[i];
        }
        constexpr int part = even_tile(OUT, 3), tiled = OUT / part * part;
        for (int c = 0; c < tiled; c += part) outer_tile<part, wide>(rows, dy + c, gw + c * row);
        if constexpr (OUT > tiled) outer_tile<OUT - tiled, wide>(rows, dy + tiled, gw + tiled * row);
    }

    template <int CT, int WIDE>
    static void outer_tile(const v (&rows)[LANES][WIDE], const v* dy, float* gw) {
        constexpr int part = even_tile(WIDE, accumulators / CT);
        for (int first = 0; first < WIDE; first += part) {
            v a[CT][part] = {};
            UNROLL for (int i = 0; i < LANES; i++)
                UNROLL for (int c = 0; c < CT; c++) {
                    v e = broadcast(((const float*)(dy + c))[i]);
                    UNROLL for (int k = 0; k < part; k++)
                        a[c][k] += rows[i][first + k < WIDE ? first + k : WIDE - 1] * e;
                }
            for (int c = 0; c < CT; c++)
                for (int k = 0; k < part && first + k < WIDE; k++) {
                    float* to = gw + c * row + (first + k) * LANES;
                    const int left = row - (first + k) * LANES;
                    if (left >= LANES) store(to, load(to) + a[c][k]);
                    else
                        for (int i = 0; i < left; i++) to[i] += a[c][k][i];
                }
        }
    }
};
