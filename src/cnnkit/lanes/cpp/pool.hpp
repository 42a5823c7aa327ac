// Pooling, per channel. The backward pass finds the maximum of a window again, so no indices are stored.
#pragma once
#include "vector.hpp"

template <class In_, int KY, int KX, int SY, int SX>
struct Pool {
    using In = In_;
    using Out = Shape<In::C, (In::H - KY) / SY + 1, (In::W - KX) / SX + 1>;

    template <class Visit>
    INLINE void windows(Visit visit) {
        for (int c = 0; c < In::C; c++)
            for (int y = 0; y < Out::H; y++)
                for (int x = 0; x < Out::W; x++)
                    visit((c * In::H + y * SY) * In::W + x * SX, (c * Out::H + y) * Out::W + x);
    }
    static constexpr int at(int k) { return k / KX * In::W + k % KX; }
    static constexpr bool disjoint = KY <= SY && KX <= SX;  // no input is in two windows

    static void clear(v* dx) {
        constexpr bool covers = KY == SY && KX == SX && In::H % KY == 0 && In::W % KX == 0;
        if (!covers) memset(dx, 0, sizeof(v) * In::size);
    }
};

template <class In, int KY, int KX, int SY, int SX>
struct MaxPool : Pool<In, KY, KX, SY, SX> {
    using P = Pool<In, KY, KX, SY, SX>;
    INLINE v window_max(const v* x) {
        v max = x[0];
        UNROLL for (int k = 1; k < KY * KX; k++) max = maximum(x[P::at(k)], max);
        return max;
    }
    static void forward(const v* x, v* y) {
        P::windows([=](int from, int to) { y[to] = window_max(x + from); });
    }
    static void backward(const v* x, const v* dy, v* dx) {
        P::clear(dx);
        P::windows([=](int from, int to) {
            v max = x[from];
            UNROLL for (int k = 1; k < KY * KX; k++) max = x[from + P::at(k)] > max ? x[from + P::at(k)] : max;
            v rest = dy[to];  // the first of several maxima gets the whole gradient
            UNROLL for (int k = 0; k < KY * KX; k++) {
                const int i = from + P::at(k);
                const auto is_max = x[i] == max;
                const v part = is_max ? rest : v{};
                dx[i] = P::disjoint ? part : dx[i] + part;
                rest = is_max ? v{} : rest;
            }
        });
    }
};

template <class In, int KY, int KX, int SY, int SX>
struct AvgPool : Pool<In, KY, KX, SY, SX> {
    using P = Pool<In, KY, KX, SY, SX>;
    static void forward(const v* x, v* y) {
        P::windows([=](int from, int to) {
            v total = {};
            for (int k = 0; k < KY * KX; k++) total += x[from + P::at(k)];
            y[to] = total * (1.0f / (KY * KX));
        });
    }
    static void backward(const v*, const v* dy, v* dx) {
        P::clear(dx);
        P::windows([=](int from, int to) {
            const v part = dy[to] * (1.0f / (KY * KX));
            for (int k = 0; k < KY * KX; k++) {
                v& to_dx = dx[from + P::at(k)];
                to_dx = P::disjoint ? part : to_dx + part;
            }
        });
    }
};
