"""The hooks of servers and clients find their extension, or an error names the key."""

import pytest

from collector.testing import FakeHost
from collector.transport.auth import find_authenticator, find_client_authenticator
from config.blocks import AuthConfig

CONFIG = AuthConfig(authenticator="a")


class Both:
    """Authenticates callers and supplies credentials."""

    async def authenticate(self, headers):
        return (("user", headers["user"][0]),)

    def client_headers(self):
        return {"authorization": "x"}


def test_both_hooks_come_from_the_named_extension():
    extension = Both()
    host = FakeHost({"a": extension})
    assert find_authenticator(host, CONFIG, "k") == extension.authenticate
    assert find_client_authenticator(host, CONFIG, "k") is extension


@pytest.mark.parametrize("find", [find_authenticator, find_client_authenticator])
def test_without_auth_there_is_no_hook(find):
    assert find(FakeHost(), None, "k") is None


@pytest.mark.parametrize(
    ("find", "extensions", "message"),
    [
        (find_authenticator, {}, "^k::auth::authenticator: extension 'a' is not running; list it under service::ext"),
        (find_client_authenticator, {}, "^k::auth::authenticator: extension 'a' is not running; list it under"),
        (find_authenticator, {"a": object()}, "^k::auth::authenticator: extension 'a' does not authenticate requests"),
        (find_client_authenticator, {"a": object()}, "^k::auth::authenticator: extension 'a' does not supply client"),
    ],
)
def test_an_unusable_extension_is_an_error_of_the_configuration(find, extensions, message):
    with pytest.raises(ValueError, match=message):
        find(FakeHost(extensions), CONFIG, "k")
