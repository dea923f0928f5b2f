"""Names and passwords are checked, in constant time, without showing any of them."""

import asyncio
import base64
import hashlib

import bcrypt
import pytest

from collector.testing import FakeClock, FakeHost, RecordingTelemetry, make
from collector.transport.auth import AuthenticationError, Authenticator, ClientAuthenticator
from extensions.basicauth import factory
from extensions.basicauth.htpasswd import parse_htpasswd, verify

HASH = bcrypt.hashpw(b"right", bcrypt.gensalt(4)).decode()


def basic(user, password):
    return {"authorization": ("Basic " + base64.b64encode(f"{user}:{password}".encode()).decode(),)}


async def started(clock=None, telemetry=None, **options):
    config = factory.config_type.model_validate(options)
    extension = make(factory, config, clock=clock or FakeClock(), telemetry=telemetry)
    await extension.start(FakeHost())
    return extension


@pytest.mark.parametrize(
    "line",
    [
        f"ann:{HASH}",
        f"ann:{HASH.replace('$2b$', '$2y$')}",
        "ann:{SHA}" + base64.b64encode(hashlib.sha1(b"right").digest()).decode(),
        "ann:{SSHA}" + base64.b64encode(hashlib.sha1(b"rightsalt").digest() + b"salt").decode(),
        "ann:right",
    ],
)
async def test_each_kind_of_password_is_verified(line):
    """The right password gives the claim, everything else is refused with the same message."""
    extension = await started(htpasswd={"inline": f"# users\n\n{line}\n"})
    assert isinstance(extension, Authenticator)
    assert not isinstance(extension, ClientAuthenticator)
    for _ in range(2):  # the second time, the credentials are remembered
        assert await extension.authenticate(basic("ann", "right")) == (("username", "ann"),)
        for user, password in (("ann", "wrong"), ("ann", ""), ("bob", "right"), ("", "")):
            with pytest.raises(AuthenticationError, match=r"^invalid credentials$"):
                await extension.authenticate(basic(user, password))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ((), "no basic auth provided"),
        (("",), "no basic auth provided"),
        (("Bearer abc",), "invalid authorization scheme; expected Basic"),
        (("Basic",), "invalid authorization format"),
        (("Basic !!!",), "invalid authorization format"),
        (("Basic " + base64.b64encode(b"no colon").decode(),), "invalid authorization format"),
        (("Basic " + base64.b64encode(b"\xff:x").decode(),), "invalid authorization format"),
        (("Basic " + "A" * 10_000,), "invalid authorization format"),
    ],
)
async def test_what_is_not_basic_authentication_is_refused(header, message):
    """The message says what is wrong without showing what came."""
    extension = await started(htpasswd={"inline": "ann:right"})
    with pytest.raises(AuthenticationError) as caught:
        await extension.authenticate({"authorization": header} if header else {})
    assert str(caught.value) == message


async def test_the_scheme_is_case_insensitive_and_passwords_may_have_colons():
    """As RFC 7617 says."""
    extension = await started(htpasswd={"inline": "ann:a:b"})
    encoded = base64.b64encode(b"ann:a:b").decode()
    assert await extension.authenticate({"authorization": (f"bASIC {encoded}",)})


async def test_the_file_is_read_again_and_inline_users_take_precedence(tmp_path):
    """A changed password is not accepted any more, although it was remembered."""
    path, clock, telemetry = tmp_path / "users", FakeClock(), RecordingTelemetry()
    path.write_text("ann:first\nbob:file\n")
    extension = await started(clock, telemetry, htpasswd={"file": str(path), "inline": "bob:inline"})
    assert await extension.authenticate(basic("ann", "first"))
    assert await extension.authenticate(basic("bob", "inline"))
    with pytest.raises(AuthenticationError):
        await extension.authenticate(basic("bob", "file"))
    path.write_text(f"ann:{HASH}\n")
    clock.move(2)
    with pytest.raises(AuthenticationError):
        await extension.authenticate(basic("ann", "first"))
    assert await extension.authenticate(basic("ann", "right"))
    path.write_text("not valid")
    clock.move(2)
    assert await extension.authenticate(basic("ann", "right"))
    (warning,) = telemetry.log.of_level("warning")
    assert "line 1 is not valid" in warning.fields["error"]
    assert "not valid\n" not in str(warning)


async def test_too_many_logins_at_a_time_are_refused():
    """bcrypt costs CPU on purpose; a flood of logins must not fill the threads."""
    extension = await started(htpasswd={"inline": f"ann:{HASH}"})
    attempts = [extension.authenticate(basic("ann", f"wrong {number}")) for number in range(200)]
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    messages = [str(outcome) for outcome in outcomes]
    assert set(messages) == {"invalid credentials", "too many logins at a time; try again"}
    assert messages.count("invalid credentials") == 64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ann", "line 1 is not valid; expected user:password"),
        ("\nann:", "line 2 is not valid"),
        (":secret", "line 1 is not valid"),
        ("ann:$apr1$x$secret", "line 1 has a hash of Apache's MD5, which is not supported; make one with htpasswd -B"),
        ("ann:$6$secret", "crypt's SHA-512"),
        ("ann:{SHA}secret", "line 1 has a hash that is not valid"),
        ("ann:$2b$secret", "line 1 has a bcrypt hash that is not valid"),
    ],
)
def test_unusable_lines_refuse_the_start_without_their_content(text, message):
    """The message has the number of the line only."""
    with pytest.raises(ValueError, match=message.replace(".", "[.]")) as caught:
        make(factory, factory.config_type.model_validate({"htpasswd": {"inline": text}}))
    assert "secret" not in str(caught.value)


def test_a_long_password_is_cut_off_as_bcrypt_does():
    """Only the first 72 bytes count, also where the library refuses longer ones."""
    hashed = bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4))
    assert verify(hashed, b"x" * 100)
    assert not verify(hashed, b"x" * 71)
    assert parse_htpasswd("a:1\na:2") == {"a": b"2"}


async def test_clients_send_the_credentials_of_the_configuration_or_of_files(tmp_path):
    """Files are read again when they change."""
    extension = await started(client_auth={"username": "ann", "password": "p:w"})
    assert isinstance(extension, ClientAuthenticator)
    assert not isinstance(extension, Authenticator)
    assert extension.client_headers() == {"authorization": basic("ann", "p:w")["authorization"][0]}
    user, password, clock = tmp_path / "user", tmp_path / "password", FakeClock()
    user.write_text("bob\n")
    password.write_text("one\r\n")
    extension = await started(clock, client_auth={"username_file": str(user), "password_file": str(password)})
    assert extension.client_headers() == {"authorization": basic("bob", "one")["authorization"][0]}
    password.write_text("three")
    clock.move(2)
    assert extension.client_headers() == {"authorization": basic("bob", "three")["authorization"][0]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "htpasswd or client_auth is required"),
        ({"htpasswd": {}}, "file or inline is required"),
        ({"htpasswd": {"inline": "a:b"}, "client_auth": {"username": "a"}}, "only one of htpasswd and client_auth"),
        ({"client_auth": {"username": "a:b"}}, "must not contain a colon"),
    ],
)
def test_the_configuration_has_exactly_one_side(options, message):
    """Each message says what to write."""
    with pytest.raises(ValueError, match=message):
        factory.config_type.model_validate(options)


async def test_a_missing_file_names_the_key(tmp_path):
    """The start is refused."""
    with pytest.raises(ValueError, match=r"extensions::basicauth::htpasswd::file: cannot read .*missing"):
        await started(htpasswd={"file": str(tmp_path / "missing")})
