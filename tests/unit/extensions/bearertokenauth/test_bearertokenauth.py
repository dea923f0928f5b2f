"""Tokens are checked for servers and provided to clients, also from a file that changes."""

import pytest

from collector.api import RetryableError
from collector.testing import FakeClock, FakeHost, RecordingTelemetry, make
from collector.transport.auth import AuthenticationError, Authenticator, ClientAuthenticator
from extensions.bearertokenauth import factory


async def started(clock=None, telemetry=None, **options):
    config = factory.config_type.model_validate(options)
    extension = make(factory, config, clock=clock or FakeClock(), telemetry=telemetry)
    await extension.start(FakeHost())
    return extension


async def accepts(extension, value, header="authorization"):
    try:
        return await extension.authenticate({header: (value,)}) == ()
    except AuthenticationError as error:
        return str(error) != "provided authorization does not match expected scheme or token"


async def test_a_token_is_sent_and_accepted_with_its_scheme():
    """Anything else is refused, without showing what came."""
    extension = await started(token="abc")
    assert isinstance(extension, Authenticator)
    assert isinstance(extension, ClientAuthenticator)
    assert extension.client_headers() == {"authorization": "Bearer abc"}
    assert await accepts(extension, "Bearer abc")
    for value in ("abc", "bearer abc", "Bearer abcd", "Bearer ab", "Basic abc", "Bearer äbc"):
        assert not await accepts(extension, value)
    for headers in ({}, {"authorization": ()}, {"authorization": ("",)}, {"x": ("Bearer abc",)}):
        with pytest.raises(AuthenticationError, match="missing or empty authorization header: authorization"):
            await extension.authenticate(headers)


async def test_header_and_scheme_are_configurable():
    """Without a scheme, the header has the token alone."""
    extension = await started(tokens=["one", "two"], header="X-Api-Key", scheme="")
    assert extension.client_headers() == {"x-api-key": "one"}
    assert await accepts(extension, "one", "x-api-key")
    assert await accepts(extension, "two", "x-api-key")
    assert not await accepts(extension, "three", "x-api-key")


async def test_the_file_is_read_again(tmp_path):
    """Tokens that are gone are refused; what follows a token is a comment; an unreadable file changes nothing."""
    path, clock, telemetry = tmp_path / "tokens", FakeClock(), RecordingTelemetry()
    path.write_text("one  # of ann\n\n\ttwo\n")
    extension = await started(clock, telemetry, filename=str(path), token="unused")
    assert [event.event for event in telemetry.log.of_level("warning")] == [
        "filename is set, so token and tokens are not used"
    ]
    assert await accepts(extension, "Bearer two")
    assert not await accepts(extension, "Bearer unused")
    assert extension.client_headers() == {"authorization": "Bearer one"}
    path.write_text("three")
    clock.move(2)
    assert not await accepts(extension, "Bearer one")
    assert await accepts(extension, "Bearer three")
    path.unlink()
    clock.move(2)
    assert await accepts(extension, "Bearer three")
    assert len(telemetry.log.of_level("warning")) == 2
    path.write_text("\n")
    clock.move(2)
    assert not await accepts(extension, "Bearer three")
    with pytest.raises(RetryableError, match="empty"):
        extension.client_headers()
    assert "three" not in str(telemetry.log.events)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "one of token, tokens and filename is required"),
        ({"token": "a", "tokens": ["b"]}, "either token or tokens may be set, not both"),
        ({"token": "a", "header": "a b"}, "'a b' is not a valid name of a header"),
    ],
)
def test_impossible_settings_are_refused(options, message):
    """Each message says what is expected."""
    with pytest.raises(ValueError, match=message):
        factory.config_type.model_validate(options)
