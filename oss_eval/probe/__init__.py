"""The instrument: bytes and the instants they arrived, and what they mean."""
