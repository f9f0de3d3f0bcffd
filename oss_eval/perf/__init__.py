"""Load sweeps: requests sent through the probe and stored with their timestamps."""
