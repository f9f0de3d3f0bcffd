"""Tests that talk to a local server over sockets."""
