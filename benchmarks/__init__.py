"""The benchmarks behind every published figure. Each prints JSON lines, with a ratio to a peer in the same run."""
