// The update rules of torch.optim, for elements `from` to `to` of a parameter.
#pragma once
#include <cmath>
#include "job.hpp"

inline void sgd(const Optimizer& optimizer, const Parameter& p, const float* __restrict g, float lr, int64_t from,
                int64_t to) {
    float *__restrict value = p.value, *__restrict velocity = p.moment1;
    const float momentum = optimizer.momentum, decay = p.weight_decay;
    if (momentum > 0 && optimizer.nesterov)
        for (int64_t i = from; i < to; i++) {
            const float gradient = g[i] + decay * value[i];
            velocity[i] = momentum * velocity[i] + gradient;
            value[i] -= lr * (gradient + momentum * velocity[i]);
        }
    else if (momentum > 0)
        for (int64_t i = from; i < to; i++) {
            velocity[i] = momentum * velocity[i] + (g[i] + decay * value[i]);
            value[i] -= lr * velocity[i];
        }
    else
        for (int64_t i = from; i < to; i++) value[i] -= lr * (g[i] + decay * value[i]);
}

inline void adam(const Optimizer& optimizer, const Parameter& p, const float* __restrict g, float lr, int64_t step,
                 int64_t from, int64_t to) {
    float *__restrict value = p.value, *__restrict moment1 = p.moment1, *__restrict moment2 = p.moment2;
    const float beta1 = optimizer.beta1, beta2 = optimizer.beta2, eps = optimizer.eps;
    const float step_size = lr / (1 - std::pow(double(beta1), double(step)));
    const float correction2 = 1 / std::sqrt(1 - std::pow(double(beta2), double(step)));
    const bool decoupled = optimizer.kind == ADAMW;
    const float shrink = decoupled ? 1 - lr * p.weight_decay : 1, decay = decoupled ? 0 : p.weight_decay;
    for (int64_t i = from; i < to; i++) {
        const float shrunk = value[i] * shrink, gradient = g[i] + decay * shrunk;
        moment1[i] += (1 - beta1) * (gradient - moment1[i]);
        moment2[i] = beta2 * moment2[i] + (1 - beta2) * gradient * gradient;
        value[i] = shrunk - step_size * moment1[i] / (__builtin_sqrtf(moment2[i]) * correction2 + eps);
    }
}

inline void update(const Optimizer& optimizer, const Parameter& p, const float* g, float lr, int64_t step, int64_t from,
                   int64_t to) {
    if (!p.learns || optimizer.kind == NONE) return;
    if (optimizer.kind == SGD) sgd(optimizer, p, g, lr * p.lr_factor, from, to);
    else adam(optimizer, p, g, lr * p.lr_factor, step, from, to);
}
