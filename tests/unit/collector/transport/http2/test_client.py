"""Which proxy a connection uses; the connections themselves are tested with the gRPC client."""

import pytest

from collector.transport.http2.client import Address, Proxy, find_proxy


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Only the environment that the test sets."""
    for name in ("https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_the_environment_names_the_proxy(monkeypatch):
    """The proxy keeps its credentials, which its repr does not show."""
    assert find_proxy("backend") is None
    monkeypatch.setenv("HTTPS_PROXY", "http://us%40er:pa%3Ass@proxy:3128")
    assert find_proxy("backend") == Proxy("proxy", 3128, "Basic dXNAZXI6cGE6c3M=")
    assert "Basic" not in repr(find_proxy("backend"))
    monkeypatch.setenv("HTTPS_PROXY", "proxy")
    assert find_proxy("backend") == Proxy("proxy", 80)


@pytest.mark.parametrize("host", ["localhost", "a.localhost", "127.0.0.1", "127.9.9.9", "::1"])
def test_loopback_goes_through_none(monkeypatch, host):
    """A proxy would connect to itself."""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:1")
    assert find_proxy(host) is None


@pytest.mark.parametrize(
    ("no_proxy", "host", "direct"),
    [
        ("*", "backend", True),
        ("backend", "backend", True),
        (".corp.test", "a.corp.test", True),
        ("corp.test", "a.corp.test", True),
        ("corp.test", "acorp.test", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8, nonsense/x", "11.1.2.3", False),
        ("10.0.0.0/8", "backend", False),
    ],
)
def test_no_proxy_holds(monkeypatch, no_proxy, host, direct):
    """``NO_PROXY`` may contain names, domains and networks."""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:1")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert (find_proxy(host) is None) is direct


@pytest.mark.parametrize("url", ["socks5://proxy:1", "https://proxy:1", "http://:1", "http://u:topsecret@proxy:99999"])
def test_other_proxies_are_refused_without_their_credentials(monkeypatch, url):
    """The message names the variable."""
    monkeypatch.setenv("HTTPS_PROXY", url)
    with pytest.raises(ValueError, match="HTTPS_PROXY") as caught:
        find_proxy("backend")
    assert "topsecret" not in str(caught.value)


def test_addresses_read_as_people_write_them():
    """Messages and CONNECT requests use this form."""
    assert [str(a) for a in (Address("h", 1), Address("::1", 2), Address(path="/s"), Address(path="\0s"))] == [
        "h:1", "[::1]:2", "unix:/s", "unix:@s",
    ]  # fmt: skip
