"""Requests, responses, errors, and their coding. Pure values: no clock, no socket, no event loop."""
