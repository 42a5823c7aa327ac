// The optimisers, as torch writes them: each updates some of a weight's numbers by their gradient.
#pragma once
#include <cmath>
#include <cstdint>

enum Kind : int32_t { NONE, SGD, ADAM, ADAMW };

struct Rule {  // what all weights share
    int32_t kind, nesterov;
    float momentum, beta1, beta2, eps;
    int64_t taken;  // steps before the first
};

struct Weight {
    float *value, *first, *second;  // its moments, where the rule has them
    int64_t size;
    float factor, decay;  // of the learning rate; of the weight
    int32_t learns;
};

inline void sgd(const Rule& rule, const Weight& w, const float* __restrict g, float lr, int64_t from, int64_t to) {
    float *__restrict value = w.value, *__restrict momentum = w.first;
    const float keep = rule.momentum, decay = w.decay;
    if (keep > 0 && rule.nesterov)
        for (int64_t i = from; i < to; i++) {
            const float slope = g[i] + decay * value[i];
            momentum[i] = keep * momentum[i] + slope;
            value[i] -= lr * (slope + keep * momentum[i]);
        }
    else if (keep > 0)
        for (int64_t i = from; i < to; i++) {
            momentum[i] = keep * momentum[i] + (g[i] + decay * value[i]);
            value[i] -= lr * momentum[i];
        }
    else
        for (int64_t i = from; i < to; i++) value[i] -= lr * (g[i] + decay * value[i]);
}

inline void adam(const Rule& rule, const Weight& w, const float* __restrict g, float lr, int64_t step, int64_t from,
                 int64_t to) {
    float *__restrict value = w.value, *__restrict first = w.first, *__restrict second = w.second;
    const float beta1 = rule.beta1, beta2 = rule.beta2, eps = rule.eps;
    const float size = lr / (1 - std::pow(double(beta1), double(step)));
    const float correct = 1 / std::sqrt(1 - std::pow(double(beta2), double(step)));
    const bool decoupled = rule.kind == ADAMW;
    const float keep = decoupled ? 1 - lr * w.decay : 1, decay = decoupled ? 0 : w.decay;
    for (int64_t i = from; i < to; i++) {
        const float kept = value[i] * keep, slope = g[i] + decay * kept;
        first[i] += (1 - beta1) * (slope - first[i]);
        second[i] = beta2 * second[i] + (1 - beta2) * slope * slope;
        value[i] = kept - size * first[i] / (__builtin_sqrtf(second[i]) * correct + eps);
    }
}

inline void update(const Rule& rule, const Weight& w, const float* g, float lr, int64_t step, int64_t from,
                   int64_t to) {
    if (!w.learns || rule.kind == NONE) return;
    if (rule.kind == SGD) sgd(rule, w, g, lr * w.factor, from, to);
    else adam(rule, w, g, lr * w.factor, step, from, to);
}
