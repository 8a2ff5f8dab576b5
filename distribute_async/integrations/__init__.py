"""The library at home elsewhere, on its public face: `fastapi`, `aiohttp`, the event format `sse`, `opentelemetry`."""
