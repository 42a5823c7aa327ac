// Activations, in place, and dropout.
#pragma once
#include "vector.hpp"

struct Sigmoid {
    INLINE v forward(v x) { return logistic(x); }
    INLINE v slope(v y) { return y * (1.0f - y); }
};
struct Tanh {
    INLINE v forward(v x) { return 2.0f * logistic(2.0f * x) - 1.0f; }
    INLINE v slope(v y) { return 1.0f - y * y; }
};
struct Relu {
    INLINE v forward(v x) { return x < 0.0f ? v{} : x; }  // no number stays none
    INLINE v slope(v y) { return y > 0.0f ? all(1.0f) : v{}; }
};

template <class Function, int N>
void activate(v* y) {
    for (int i = 0; i < N; i++) y[i] = Function::forward(y[i]);
}
template <class Function, int N>
void activate_backward(const v* y, v* dy) {
    for (int i = 0; i < N; i++) dy[i] *= Function::slope(y[i]);
}

INLINE vu scramble(vu x) {  // a hash of 32 bits
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    return x ^ (x >> 16);
}

// What is dropped follows from the seed, the unit and the image's place in the batch, so the way back needs no mask.
template <int N>
void dropout(const v* x, v* y, float share, uint32_t seed, int first) {
    const uint32_t limit = share * 4294967296.0;
    const v scale = all(1.0f / (1.0f - share));
    vu image;
    for (int i = 0; i < LANES; i++) image[i] = first + i;
    image = scramble(image + seed);
    for (uint32_t i = 0; i < N; i++) y[i] = scramble(image ^ (i * 0x9e3779b9u)) >= limit ? x[i] * scale : v{};
}
