"""What users hold."""

from distribute_async._public import publish

publish(__name__)
