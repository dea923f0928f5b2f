import types

import pytest
from aiohttp import web


@pytest.fixture
async def http_requests():
    """A server that accepts everything: its url, and the headers of each request (lower-case names)."""
    found = types.SimpleNamespace(headers=[], url="")

    async def accept(request):
        found.headers.append({name.lower(): value for name, value in request.headers.items()})
        await request.read()
        return web.Response(content_type="application/x-protobuf")

    app = web.Application()
    app.router.add_post("/{path:.*}", accept)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield found
    await runner.cleanup()
