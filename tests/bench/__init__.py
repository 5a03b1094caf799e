"""Benchmarks: each figure is a ratio beside something that ran in the same minutes on the same machine."""
