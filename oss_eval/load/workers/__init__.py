"""The processes that hold the connections, and the pool that drives them."""
