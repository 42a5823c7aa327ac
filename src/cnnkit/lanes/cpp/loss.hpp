// Cross entropy on logits with smoothed labels: the losses of a group, its number of correct images, and the logits' gradient.
#pragma once
#include <cmath>
#include "vector.hpp"

template <int N>
void cross_entropy(const v* logits, v* d, const int64_t* labels, int images, float smoothing, float scale,
                   double& loss, int64_t& correct) {
    v most = logits[0];
    vi first = {};
    for (int i = 1; i < N; i++) {
        const auto above = logits[i] > most;
        first = above ? vi{} + i : first;
        most = larger(logits[i], most);
    }
    v total = {};
    for (int i = 0; i < N; i++) {
        d[i] = exponential(logits[i] - most);
        total += d[i];
    }
    vi label = vi{} - 1;  // lanes without an image have none
    v mask = {};
    for (int l = 0; l < images; l++) {
        label[l] = labels[l];
        mask[l] = 1;
    }
    const v inverse = 1.0f / total;
    for (int l = 0; l < images; l++) {
        const float whole = std::log(total[l]) + most[l];
        double mean = 0;
        if (smoothing > 0)
            for (int i = 0; i < N; i++) mean += whole - logits[i][l];
        loss += (1 - smoothing) * (whole - logits[label[l]][l]) + smoothing * mean / N;
        correct += first[l] == label[l];
    }
    const float right = 1 - smoothing, each = smoothing / N;
    for (int i = 0; i < N; i++) {
        const v target = (label == i ? all(right) : v{}) + each;
        d[i] = (d[i] * inverse - target) * (mask * scale);
    }
}
