"""Which server: URL, authentication, discovery, identity, capabilities."""
