"""The pages: each has CONTROLS, and `draw` which makes a sheet for an address."""
