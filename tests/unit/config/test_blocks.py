"""Headers, proxies, URLs and TLS of clients and servers: each that cannot work is reported at its own place."""

from typing import ClassVar

import pytest

from config.blocks import GRPCClientConfig, HTTPClientConfig, HTTPServerConfig, TLSClientConfig, TLSServerConfig
from config.validation import parse_model
from config.yaml import Position, parse

SECRET = "s3cret-s3cret"


class Client(HTTPClientConfig):
    reserved_headers: ClassVar[frozenset[str]] = frozenset({"user-agent"})


def findings(model, text):
    node = parse(text, "c.yaml")
    result, errors = parse_model(model, node, Position("c.yaml", 1, 1), ("exporters", "x"))
    assert (result is None) == bool(errors)
    assert SECRET not in "".join(map(str, errors))
    return [str(error) for error in errors]


def test_everything_wrong_with_a_client_is_reported_at_its_place():
    """One finding for each header, and for the values beside them."""
    text = f"""
endpoint: backend:4318
proxy_url: socks5://u:{SECRET}@h:1
compression_params: {{level: 1, speed: 1}}
headers:
  fine: {SECRET}
  X Key: {SECRET}
  Content-Length: {SECRET}
  User-Agent: {SECRET}
  X-Twice: {SECRET}
  x-twice: {SECRET}
  broken: "{SECRET}\\nx"
"""
    begins = [
        "c.yaml:2:11: exporters::x::endpoint: the value must be a URL with http:// or https://",
        "c.yaml:3:12: exporters::x::proxy_url: the value is not a valid HTTP proxy: expected http://host:port",
        "c.yaml:4:39: exporters::x::compression_params::speed: unknown key 'speed'; the only allowed key is level",
        "c.yaml:7:10: exporters::x::headers::X Key: 'X Key' is not a valid header name",
        "c.yaml:8:19: exporters::x::headers::Content-Length: Content-Length cannot be configured",
        "c.yaml:9:15: exporters::x::headers::User-Agent: User-Agent cannot be configured",
        "c.yaml:11:12: exporters::x::headers::x-twice: x-twice is given twice",
        "c.yaml:12:11: exporters::x::headers::broken: the value of broken contains a line break or NUL",
    ]
    found = sorted(findings(Client, text), key=lambda line: int(line.split(":")[1]))
    assert [line[: len(start)] for line, start in zip(found, begins, strict=True)] == begins


@pytest.mark.parametrize(
    "name", ["", "X-Key:", "X-Schlüssel", "transfer-encoding", "CONTENT-ENCODING", "Content-Type", "connection", "TE"]
)
def test_names_that_a_request_cannot_have(name):
    """Beside one that is fine."""
    assert len(findings(HTTPClientConfig, f'{{headers: {{"{name}": x, fine: x}}}}')) == 1


@pytest.mark.parametrize("url", ["http://", "http://u:p@h:99999", "ftp://h:1", "http://h:0", "http://[::1"])
def test_proxies_and_urls_that_cannot_work(url):
    """Both keys take the same URLs."""
    assert len(findings(HTTPClientConfig, f'{{proxy_url: "{url}", endpoint: "{url}"}}')) == 2


@pytest.mark.parametrize("url", ["proxy.example:3128", "http://u:p@h:1", "https://[::1]:3128"])
def test_a_proxy_may_have_no_scheme(url):
    """As for curl and Go."""
    assert findings(HTTPClientConfig, f'{{proxy_url: "{url}"}}') == []


def test_headers_of_responses():
    """Those of CORS as well."""
    text = f"""
response_headers: {{X-Fine: a, Content-Length: "5", "X Bad": {SECRET}, X-Split: "{SECRET}\\r\\nSet-Cookie: x"}}
cors: {{allowed_origins: ["*"], exposed_headers: [X-Fine, "X:Bad"], allowed_headers: ["*", "a b"]}}
"""
    found = findings(HTTPServerConfig, text)
    assert [line.split(": ")[1] for line in found] == [
        "exporters::x::cors::allowed_headers::1",
        "exporters::x::cors::exposed_headers::1",
        "exporters::x::response_headers::Content-Length",
        "exporters::x::response_headers::X Bad",
        "exporters::x::response_headers::X-Split",
    ]


def test_metadata_of_calls():
    """gRPC has rules of its own; binary values are allowed where gRPC encodes them."""
    text = f"""
authority: bücher
user_agent: "a\\tb"
headers: {{x-bin: "{SECRET}ü", X-Fine: a, x-value: "{SECRET}ü", Grpc-Timeout: x, host: x, "a b": x, user-agent: x}}
"""
    found = [line.split(": ", 2)[1:] for line in findings(GRPCClientConfig, text)]
    assert [(path, message.partition(";")[2]) for path, message in found] == [
        ("exporters::x::headers::x-value", " only headers with names ending in -bin may have other values"),
        ("exporters::x::headers::Grpc-Timeout", ""),
        ("exporters::x::headers::host", ""),
        ("exporters::x::headers::a b", ""),
        ("exporters::x::headers::user-agent", " set user_agent instead"),
        ("exporters::x::authority", " write a host name with other letters in its xn-- form"),
        ("exporters::x::user_agent", " write a host name with other letters in its xn-- form"),
    ]


@pytest.mark.parametrize(
    ("model", "keys", "place", "said"),
    [
        (TLSClientConfig, "cert_pem: SECRET", "x", "cert_file (or cert_pem) requires key_file"),
        (TLSClientConfig, "key_pem: SECRET", "x", "key_file (or key_pem) requires cert_file"),
        (TLSServerConfig, "cert_file: a", "x", "a server requires cert_file (or cert_pem) and key_file"),
        (TLSClientConfig, 'min_version: "1.3"\nmax_version: "1.2"', "x::min_version", "1.3 is above max_version 1.2"),
        (TLSClientConfig, 'max_version: "1.1"', "x::max_version", "1.1 is below min_version, which is 1.2 by default"),
        (TLSClientConfig, "cipher_suites: [RC4]", "x::cipher_suites", "unknown names RC4; expected names from TLS_"),
        (TLSClientConfig, "curve_preferences: [P256, P384]", "x::curve_preferences", "expected one of P256"),
    ],
)
def test_tls_settings_that_cannot_work_together(model, keys, place, said):
    """Without reading a file: whether the files can be used shows at the start."""
    (error,) = findings(model, keys.replace("SECRET", SECRET))
    assert f"exporters::{place}: {said}" in error
