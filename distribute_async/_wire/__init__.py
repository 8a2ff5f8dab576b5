"""Requests, responses, errors, and their coding. Pure values: no clock, no socket, no event loop."""

from distribute_async._public import publish

publish(__name__)
