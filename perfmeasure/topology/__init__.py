"""Which service calls which, across machines: what is collected, exported and fetched of it."""
