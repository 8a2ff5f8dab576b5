"""Benchmarks: `python -m benchmarks` compares this library with its peers over the network."""
