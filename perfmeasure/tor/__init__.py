"""Run Tor, read its control port, and make private Tor networks on loopback."""
