"""Tests of functions and classes: no server, no process."""
