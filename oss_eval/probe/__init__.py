"""The instrument: bytes with their receive timestamps, and their decoding."""
