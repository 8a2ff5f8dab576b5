"""Complete small applications: the same progress page on FastAPI and on aiohttp.web."""
