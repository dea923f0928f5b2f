import ssl
import types

import pytest
import trustme
from aiohttp import web


@pytest.fixture
async def stand_in():
    """Starts servers that answer as a metadata service does: ``await stand_in(answers)`` returns the host:port."""
    runners = []

    async def start(answers, *, unix=None, tls=None):
        requests, bodies = [], []

        async def answer(request):
            requests.append((request.method, request.path_qs, dict(request.headers)))
            bodies.append(await request.text())
            found = answers.get((request.method, request.path))
            if isinstance(found, list):  # one answer after the other, and the last one from then on
                found = found.pop(0) if len(found) > 1 else found[0]
            if isinstance(found, int):
                return web.Response(status=found)
            if found is None:
                return web.Response(status=404)
            required, body = found
            if any(request.headers.get(name) != value for name, value in required.items()):
                return web.Response(status=401)
            return web.json_response(body) if isinstance(body, dict) else web.Response(text=body)

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        runners.append(runner)
        if unix is not None:
            await web.UnixSite(runner, unix).start()
            return types.SimpleNamespace(address="", requests=requests, bodies=bodies)
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        host, port = runner.addresses[0][:2]
        return types.SimpleNamespace(address=f"{host}:{port}", host=host, port=port, requests=requests, bodies=bodies)

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
def authority(tmp_path):
    """A certificate authority: the context of a server, and the folder of a service account that trusts it."""
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    ca.cert_pem.write_to_path(tmp_path / "ca.crt")
    (tmp_path / "token").write_text("t0ken\n")
    return types.SimpleNamespace(tls=context, folder=tmp_path)
