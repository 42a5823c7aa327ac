"""How a training step is computed, chosen by measuring on the machine at hand."""
