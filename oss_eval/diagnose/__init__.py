"""A few requests to a server, and what they tell about it."""
