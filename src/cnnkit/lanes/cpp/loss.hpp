// Cross entropy of a group's logits with smoothed labels: sum of losses, number of correct images, gradient d.
#pragma once
#include <cmath>
#include "vector.hpp"

template <int N>
void cross_entropy(const v* logits, v* d, const int64_t* labels, int images, float smoothing, float scale,
                   double& loss, int64_t& correct) {
    v max = logits[0];
    vi argmax = {};
    for (int i = 1; i < N; i++) {
        const auto above = logits[i] > max;
        argmax = above ? vi{} + i : argmax;
        max = maximum(logits[i], max);
    }
    v total = {};
    for (int i = 0; i < N; i++) {
        d[i] = exponential(logits[i] - max);
        total += d[i];
    }
    vi label = vi{} - 1;  // of lanes without an image
    v mask = {};
    for (int l = 0; l < images; l++) {
        label[l] = labels[l];
        mask[l] = 1;
    }
    const v inverse = 1.0f / total;
    for (int l = 0; l < images; l++) {
        const float log_sum = std::log(total[l]) + max[l];
        double mean = 0;
        if (smoothing > 0)
            for (int i = 0; i < N; i++) mean += log_sum - logits[i][l];
        loss += (1 - smoothing) * (log_sum - logits[label[l]][l]) + smoothing * mean / N;
        correct += argmax[l] == label[l];
    }
    const float on_label = 1 - smoothing, on_each = smoothing / N;
    for (int i = 0; i < N; i++) {
        const v target = (label == i ? broadcast(on_label) : v{}) + on_each;
        d[i] = (d[i] * inverse - target) * (mask * scale);
    }
}
