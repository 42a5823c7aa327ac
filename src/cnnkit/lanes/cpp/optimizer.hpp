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

inline void sgd(const Rule& rule, const Weight& w, const float* g, float lr, int64_t from, int64_t to) {
    for (int64_t i = from; i < to; i++) {
        float step = g[i] + w.decay * w.value[i];
        if (rule.momentum > 0) {
            w.first[i] = rule.momentum * w.first[i] + step;
            step = rule.nesterov ? step + rule.momentum * w.first[i] : w.first[i];
        }
        w.value[i] -= lr * step;
    }
}

inline void adam(const Rule& rule, const Weight& w, const float* g, float lr, int64_t step, int64_t from, int64_t to) {
    const float correct1 = 1 - std::pow(double(rule.beta1), double(step));
    const float correct2 = std::sqrt(1 - std::pow(double(rule.beta2), double(step)));
    const bool decoupled = rule.kind == ADAMW;
    const float keep = decoupled ? 1 - lr * w.decay : 1, decay = decoupled ? 0 : w.decay;
    const float size = lr / correct1;
    for (int64_t i = from; i < to; i++) {
        const float value = w.value[i] * keep, slope = g[i] + decay * value;
        w.first[i] += (1 - rule.beta1) * (slope - w.first[i]);
        w.second[i] = rule.beta2 * w.second[i] + (1 - rule.beta2) * slope * slope;
        w.value[i] = value - size * w.first[i] / (__builtin_sqrtf(w.second[i]) / correct2 + rule.eps);
    }
}

inline void update(const Rule& rule, const Weight& w, const float* g, float lr, int64_t step, int64_t from,
                   int64_t to) {
    if (!w.learns || rule.kind == NONE) return;
    if (rule.kind == SGD) sgd(rule, w, g, lr * w.factor, from, to);
    else adam(rule, w, g, lr * w.factor, step, from, to);
}
