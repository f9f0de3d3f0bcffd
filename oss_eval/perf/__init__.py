"""Speed: load sweeps through the probe, every request stored with all that it showed."""
