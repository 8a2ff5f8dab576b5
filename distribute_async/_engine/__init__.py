"""What acts: sockets and asyncio."""
