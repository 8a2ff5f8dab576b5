"""What acts: sockets and asyncio."""

from distribute_async._public import publish

publish(__name__)
