"""How a training step is computed, chosen by benchmarks on this machine."""
