"""Pictures and numbers of runs: tables to compare them, curves on paper and in the terminal."""
