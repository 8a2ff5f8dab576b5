"""The I/O: HTTP exchanges, polling, downloads. The only room below the public API that uses sockets and asyncio."""

from distribute_async._public import publish

publish(__name__)
