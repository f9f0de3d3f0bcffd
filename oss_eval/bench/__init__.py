"""Quality: benchmarks asked through the probe, graded, stored with their timings."""
