"""This library and its peers against one local server, on the same seeded workloads."""
