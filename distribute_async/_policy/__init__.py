"""The decisions: pacing, retries, what a reply means for a task. Pure: no clock, no socket, no event loop."""

from distribute_async._public import publish

publish(__name__)
