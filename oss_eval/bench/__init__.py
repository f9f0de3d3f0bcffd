"""Benchmarks: samples asked through the probe, scored, and stored with their timings."""
