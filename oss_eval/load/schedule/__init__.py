"""When the requests of a point start: one module a load pattern, without clock or sockets."""
