"""What the benchmarks share: peers, turns, and the tables of results."""
