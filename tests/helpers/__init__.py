"""Servers, data and checks that tests share."""
