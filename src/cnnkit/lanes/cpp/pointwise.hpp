// Activation functions, in place, and dropout.
#pragma once
#include "vector.hpp"

struct Sigmoid {
    INLINE v forward(v x) { return sigmoid(x); }
    INLINE v derivative(v y) { return y * (1.0f - y); }
};
struct Tanh {
    INLINE v forward(v x) { return 2.0f * sigmoid(2.0f * x) - 1.0f; }
    INLINE v derivative(v y) { return 1.0f - y * y; }
};
struct ReLU {
    INLINE v forward(v x) { return x < 0.0f ? v{} : x; }  // NaN propagates
    INLINE v derivative(v y) { return y > 0.0f ? broadcast(1.0f) : v{}; }
};

template <class Function, int N>
void activate(v* y) {
    for (int i = 0; i < N; i++) y[i] = Function::forward(y[i]);
}
template <class Function, int N>
void activate_backward(const v* y, v* dy) {
    for (int i = 0; i < N; i++) dy[i] *= Function::derivative(y[i]);
}

INLINE vu hash(vu x) {
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    return x ^ (x >> 16);
}

// The mask is a hash of the seed, the unit and the image's index in the batch, so the backward pass recomputes it.
template <int N>
void dropout(const v* x, v* y, float p, uint32_t seed, int first) {
    const uint32_t limit = p * 4294967296.0;
    const v scale = broadcast(1.0f / (1.0f - p));
    vu image;
    for (int i = 0; i < LANES; i++) image[i] = first + i;
    image = hash(image + seed);
    for (uint32_t i = 0; i < N; i++) y[i] = hash(image ^ (i * 0x9e3779b9u)) >= limit ? x[i] * scale : v{};
}
