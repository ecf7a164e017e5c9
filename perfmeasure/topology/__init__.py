"""Which services there are and who calls whom: collection, agent and export."""
