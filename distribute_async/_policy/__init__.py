"""What is decided: pure; the time and a reply in, what follows out."""

from distribute_async._public import publish

publish(__name__)
