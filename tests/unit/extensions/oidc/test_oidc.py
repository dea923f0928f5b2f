"""Tokens of a stand-in for an issuer, which publishes its keys over HTTP as a real one does."""

import base64
import contextlib
import json
import warnings

import pytest
from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from pydantic import ValidationError

from collector.api import RetryableError
from collector.testing import FakeClock, FakeHost, RecordingTelemetry, eventually, make_settings
from collector.transport.auth import AuthenticationError
from extensions.oidc import factory

START_S = 1_700_000_000


class Issuer:
    """Publishes a configuration and keys, and signs tokens."""

    def __init__(self):
        self.keys = {"a": RSAKey.generate_key(2048, {"kid": "a", "use": "sig", "alg": "RS256"})}
        self.url, self.asked_count = "", 0
        self.configuration = None

    def published(self):
        return {
            "keys": [
                {"kty": "oct", "kid": "s", "k": "c2VjcmV0"},
                *(key.as_dict(private=False) for key in self.keys.values()),
            ]
        }

    async def _configuration(self, _request):
        self.asked_count += 1
        return web.json_response(self.configuration or {"issuer": self.url, "jwks_uri": f"{self.url}/keys"})

    async def _keys(self, _request):
        return web.json_response(self.published())

    @contextlib.asynccontextmanager
    async def serving(self):
        app = web.Application()
        app.router.add_get("/.well-known/openid-configuration", self._configuration)
        app.router.add_get("/keys", self._keys)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    def token(self, key="a", algorithm="RS256", header=None, **claims):
        payload = {"iss": self.url, "aud": "telemetry", "sub": "ada", "exp": START_S + 3600, **claims}
        payload = {name: value for name, value in payload.items() if value is not None}
        head = {"alg": algorithm, **({"kid": key} if header is None else header)}
        with warnings.catch_warnings(action="ignore"):  # about the name EdDSA
            return jwt.encode(head, payload, self.keys[key], algorithms=[algorithm])


@pytest.fixture
async def issuer():
    async with Issuer().serving() as serving:
        yield serving


@contextlib.asynccontextmanager
async def running(config, clock=None, telemetry=None):
    sut = factory.create(
        make_settings(factory, clock=clock or FakeClock(START_S * 10**9), telemetry=telemetry or RecordingTelemetry()),
        factory.config_type.model_validate(config),
    )
    await sut.start(FakeHost())
    try:
        yield sut
    finally:
        await sut.shutdown()


def config(issuer, **options):
    return {"providers": [{"issuer_url": issuer.url, "audience": "telemetry", **options}]}


def bearing(token, header="authorization"):
    return {header: [f"Bearer {token}"]}


async def refused(sut, headers):
    with pytest.raises(AuthenticationError) as caught:
        await sut.authenticate(headers)
    return str(caught.value)


async def known(sut):
    """The keys were fetched in the background."""
    (provider,) = sut._providers.values()
    await eventually(lambda: bool(provider.keys.current()))


async def test_claims_of_a_valid_token(issuer):
    """Named as in the Collector; lists are joined; claims that every token has anew are left out."""
    async with running(config(issuer, groups_claim="groups")) as sut:
        await known(sut)
        token = issuer.token(groups=["a", "b"], tenant="acme", n=7, jti="x", iat=START_S, long="x" * 2000)
        assert dict(await sut.authenticate(bearing(token))) == {
            "subject": "ada", "membership": "a;b", "claims.groups": "a;b", "claims.iss": issuer.url,
            "claims.aud": "telemetry", "claims.sub": "ada", "claims.tenant": "acme", "claims.n": "7",
        }  # fmt: skip
        again = await sut.authenticate(bearing(issuer.token(groups=["a", "b"], tenant="acme", n=7, jti="y")))
        assert again == await sut.authenticate(bearing(token))


async def test_every_type_of_key(issuer):
    """RSA, elliptic curves and Ed25519."""
    issuer.keys |= {
        "e": ECKey.generate_key("P-256", {"kid": "e"}), "o": OKPKey.generate_key("Ed25519", {"kid": "o"}),
    }  # fmt: skip
    async with running(config(issuer)) as sut:
        await known(sut)
        for key, algorithm in (("a", "RS256"), ("e", "ES256"), ("o", "EdDSA")):
            assert await sut.authenticate(bearing(issuer.token(key, algorithm)))


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": START_S - 61}, "expired"),
        ({"exp": None}, "no time of expiry"),
        ({"exp": "soon"}, "no time of expiry"),
        ({"nbf": START_S + 61}, "not valid yet"),
        ({"aud": "other"}, "another audience"),
        ({"aud": ["x", "y"]}, "another audience"),
        ({"aud": None}, "another audience"),
        ({"iss": "http://evil"}, "another issuer"),
        ({"iss": None}, "another issuer"),
        ({"sub": 7}, "not text"),
    ],
)
async def test_invalid_claims_are_refused(issuer, claims, reason):
    """The signature alone proves nothing."""
    async with running(config(issuer)) as sut:
        await known(sut)
        assert reason in await refused(sut, bearing(issuer.token(**claims)))


async def test_clocks_may_differ_a_little(issuer):
    """By a minute, unless configured otherwise; audiences may be a list."""
    async with running(config(issuer)) as sut:
        await known(sut)
        assert await sut.authenticate(bearing(issuer.token(exp=START_S - 59, nbf=START_S + 59, aud=["x", "telemetry"])))
    async with running({**config(issuer), "clock_skew": "0s"}) as sut:
        await known(sut)
        assert "expired" in await refused(sut, bearing(issuer.token(exp=START_S - 1)))


async def test_forged_tokens_are_refused(issuer):
    """Unsigned, signed with the public key as a secret, with a key of somebody else, or changed."""
    async with running(config(issuer)) as sut:
        await known(sut)
        good = issuer.token()
        head, payload, signature = good.split(".")
        none = base64.urlsafe_b64encode(b'{"alg":"none","kid":"a"}').rstrip(b"=").decode()
        public = OctKey.import_key(json.dumps(issuer.keys["a"].as_dict(private=False)))
        confused = jwt.encode({"alg": "HS256", "kid": "a"}, {"iss": issuer.url}, public, algorithms=["HS256"])
        shared = jwt.encode(
            {"alg": "HS256", "kid": "s"}, {"iss": issuer.url}, OctKey.import_key("secret" * 4), algorithms=["HS256"]
        )
        other = Issuer()
        other.url = issuer.url
        changed = base64.urlsafe_b64encode(json.dumps({"iss": issuer.url, "sub": "eve"}).encode()).rstrip(b"=").decode()
        for token in (
            f"{none}.{payload}.",
            confused,
            shared,
            other.token(),
            f"{head}.{changed}.{signature}",
            good[:-4],
        ):
            assert "signature of the token is not valid" in await refused(sut, bearing(token))
        assert await sut.authenticate(bearing(good))
        assert "signature" in await refused(sut, bearing(f"{head}.{changed}.{signature}"))


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer  x", "Bearer a b", "Bearer ä"])
async def test_headers_without_a_token_are_refused(issuer, value):
    """The scheme is not looked at, as in the Collector."""
    async with running(config(issuer)) as sut:
        await known(sut)
        await refused(sut, {"authorization": [value]} if value else {})
        for token in ("x", "a.b.c", "W10.W10.x", "." * 20_000):
            await refused(sut, bearing(token))


async def test_new_keys_are_fetched_when_they_are_needed(issuer):
    """At most once every ten seconds, whatever senders do; and all tokens are checked again with the new keys."""
    clock = FakeClock(START_S * 10**9)
    async with running(config(issuer), clock) as sut:
        await known(sut)
        old = issuer.token()
        await sut.authenticate(bearing(old))
        issuer.keys = {"b": RSAKey.generate_key(2048, {"kid": "b"})}
        new = issuer.token("b")
        for _ in range(20):
            assert "signature" in await refused(sut, bearing(new))
        assert issuer.asked_count == 1
        await clock.advance(10)
        assert await sut.authenticate(bearing(new))
        assert issuer.asked_count == 2
        assert "signature" in await refused(sut, bearing(old))


async def test_keys_are_refreshed_at_intervals(issuer):
    """A key that the issuer has withdrawn is not accepted any more; nothing else has to happen."""
    clock = FakeClock(START_S * 10**9)
    async with running({**config(issuer), "refresh_interval": "60s"}, clock) as sut:
        await known(sut)
        token = issuer.token()
        await sut.authenticate(bearing(token))
        issuer.keys = {"b": RSAKey.generate_key(2048, {"kid": "b"})}
        await clock.advance(60)
        await eventually(lambda: sut._only().keys.current()[0].kid == "b")
        assert "signature" in await refused(sut, bearing(token))


async def test_an_issuer_that_does_not_answer_prevents_nothing(issuer):
    """Requests are to be sent again until there are keys; the keys fetched before stay in use."""
    clock, telemetry = FakeClock(START_S * 10**9), RecordingTelemetry()
    issuer.configuration = {"issuer": "http://another", "jwks_uri": f"{issuer.url}/keys"}
    async with running({**config(issuer), "refresh_interval": "60s"}, clock, telemetry) as sut:
        await eventually(lambda: issuer.asked_count == 1 and bool(telemetry.log.events))
        with pytest.raises(RetryableError) as caught:
            await sut.authenticate(bearing(issuer.token()))
        assert caught.value.reason == "no_keys"
        issuer.configuration = None
        await clock.advance(10)
        assert await sut.authenticate(bearing(issuer.token()))
        issuer.configuration = {"issuer": issuer.url}
        await clock.advance(60)
        await eventually(lambda: issuer.asked_count == 3 and len(telemetry.log.events) == 2)
        assert await sut.authenticate(bearing(issuer.token()))


async def test_several_providers(issuer):
    """A token is checked against the provider that it names, and no other."""
    async with Issuer().serving() as second:
        both = {"providers": [*config(issuer)["providers"], *config(second, username_claim="email")["providers"]]}
        async with running(both) as sut:
            await eventually(lambda: all(one.keys.current() for one in sut._providers.values()))
            assert dict(await sut.authenticate(bearing(issuer.token())))["subject"] == "ada"
            claims = await sut.authenticate(bearing(second.token(email="a@b")))
            assert dict(claims)["subject"] == "a@b"
            assert "no claim 'email'" in await refused(sut, bearing(second.token()))
            assert "signature" in await refused(sut, bearing(issuer.token(iss=second.url)))
            assert "no provider" in await refused(sut, bearing(issuer.token(iss="http://other")))


async def test_keys_of_a_file(issuer, tmp_path):
    """The issuer is not asked; a changed file is read again; another issuer may be ignored; tokens may name no key."""
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(issuer.published()))
    clock = FakeClock(START_S * 10**9)
    options = {"public_keys_file": str(path), "ignore_issuer": True, "ignore_audience": True}
    async with running(config(issuer, **options), clock) as sut:
        token = issuer.token(iss="anybody", aud=None, header={})
        assert await sut.authenticate(bearing(token))
        issuer.keys = {"b": ECKey.generate_key("P-256", {"kid": "b"})}
        path.write_text(json.dumps(issuer.published()))
        await clock.advance(2)
        assert "signature" in await refused(sut, bearing(token))
        assert await sut.authenticate(bearing(issuer.token("b", "ES256")))
    assert issuer.asked_count == 0
    path.write_text('{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}')
    with pytest.raises(ValueError, match=r"providers::0::public_keys_file.*no usable keys"):
        async with running(config(issuer, **options)):
            pass


async def test_what_is_remembered_is_bounded(issuer):
    """The oldest is forgotten and verified again; an expired token is not remembered as valid."""
    clock = FakeClock(START_S * 10**9)
    async with running(config(issuer), clock) as sut:
        await known(sut)
        short = issuer.token(exp=START_S + 5)
        assert await sut.authenticate(bearing(short))
        await clock.advance(66)
        assert "expired" in await refused(sut, bearing(short))
        sut._remembered = {
            number.to_bytes(4, "big"): sut._remembered[next(iter(sut._remembered))] for number in range(4096)
        }
        assert await sut.authenticate(bearing(issuer.token()))
        assert len(sut._remembered) == 4096


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "at least one is required"),
        ({"providers": [{"audience": "x"}]}, "issuer_url: required"),
        ({"providers": [{"issuer_url": "https://a"}]}, "audience: required"),
        ({"providers": [{"issuer_url": "a", "audience": "x"}]}, "expected a URL"),
        (
            {"issuer_url": "https://a", "audience": "x", "providers": [{"issuer_url": "https://a", "audience": "x"}]},
            "occurs twice",
        ),
        (
            {"providers": [{"issuer_url": f"https://{name}", "audience": "x", "ignore_issuer": True} for name in "ab"]},
            "single provider",
        ),
        ({"attribute": "a b", "issuer_url": "https://a", "audience": "x"}, "name of a header"),
    ],
)
def test_refuses(options, reason):
    """The message names the key."""
    with pytest.raises(ValidationError, match=reason):
        factory.config_type.model_validate(options)


def test_the_deprecated_keys_are_those_of_a_provider():
    """In front of the others, with a warning for each."""
    made = factory.config_type.model_validate({
        "issuer_url": "http://a", "audience": "x", "groups_claim": "g", "providers": [{"issuer_url": "https://b", "ignore_audience": True}],
    })  # fmt: skip
    assert [(one.issuer_url, one.groups_claim) for one in made.all_providers()] == [
        ("http://a", "g"),
        ("https://b", ""),
    ]
    assert [key for key, _ in made.warnings()] == ["issuer_url", "audience", "groups_claim", "providers::0::issuer_url"]
