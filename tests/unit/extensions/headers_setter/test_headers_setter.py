"""Headers of requests come from the configuration, from files, or from the request that brought the data."""

import pytest

from collector.api import PermanentError
from collector.model import Context, Signal, Traces
from collector.testing import FakeClock, FakeHost, eventually, make, make_settings, traces
from collector.transport.auth import SENT_CONTEXT, ClientAuthenticator
from exporters.otlp_http import factory as otlp_http
from extensions.bearertokenauth import factory as bearertokenauth
from extensions.headers_setter import factory


async def started(headers, clock=None, host=None, **options):
    config = factory.config_type.model_validate({"headers": headers, **options})
    extension = make(factory, config, clock=clock or FakeClock())
    await extension.start(host or FakeHost())
    return extension


@pytest.mark.parametrize(
    ("action", "present", "expected"),
    [
        ("upsert", set(), {"x-a": "1"}),
        ("upsert", {"x-a"}, {"x-a": "1"}),
        ("insert", set(), {"x-a": "1"}),
        ("insert", {"x-a"}, {}),
        ("update", set(), {}),
        ("update", {"x-a"}, {"x-a": "1"}),
    ],
)
async def test_each_action(action, present, expected):
    """What an action does depends on the headers that the request has already."""
    extension = await started([{"action": action, "key": "X-A", "value": "1"}])
    assert isinstance(extension, ClientAuthenticator)
    assert extension.header_changes(present) == expected


async def test_later_headers_see_the_effect_of_earlier_ones():
    """The list is applied in order."""
    extension = await started(
        [
            {"key": "x-a", "value": "1"},
            {"action": "insert", "key": "x-a", "value": "2"},
            {"action": "delete", "key": "x-b"},
            {"action": "update", "key": "x-b", "value": "3"},
            {"action": "delete", "key": "x-c"},
            {"action": "insert", "key": "x-c", "value": "4"},
        ]
    )
    assert extension.header_changes({"x-b", "x-c"}) == {"x-a": "1", "x-b": None, "x-c": "4"}
    assert extension.client_headers() == {"x-a": "1", "x-c": "4"}


async def test_values_come_from_the_request_that_brought_the_data():
    """From a header of it, or from a claim of its authenticated sender; else the default holds."""
    extension = await started(
        [
            {"key": "x-scope-orgid", "from_context": "X-Tenant", "default_value": "nobody"},
            {"key": "x-user", "from_attribute": "username"},
        ]
    )
    assert extension.client_headers() == {"x-scope-orgid": "nobody"}
    SENT_CONTEXT.set(Context(metadata=(("x-tenant", ("a",)),), claims=(("username", "ann"),)))
    assert extension.client_headers() == {"x-scope-orgid": "a", "x-user": "ann"}
    SENT_CONTEXT.set(Context(metadata=(("x-tenant", ("a", "b")),)))
    with pytest.raises(PermanentError, match="2 headers 'x-tenant'") as caught:
        extension.client_headers()
    assert caught.value.reason == "ambiguous_header"


async def test_values_of_files_are_read_again(tmp_path):
    """Without the line break at the end."""
    path, clock = tmp_path / "key", FakeClock()
    path.write_text("one\n")
    extension = await started([{"key": "x-key", "value_file": str(path)}], clock)
    assert extension.client_headers() == {"x-key": "one"}
    path.write_text("three\n")
    clock.move(2)
    assert extension.client_headers() == {"x-key": "three"}


async def test_additional_auth_comes_first():
    """Its headers count as those the request has."""
    token = make(bearertokenauth, bearertokenauth.config_type.model_validate({"token": "abc"}))
    host = FakeHost({"bearertokenauth": token})
    headers = [{"key": "x-a", "value": "1"}, {"action": "insert", "key": "authorization", "value": "other"}]
    extension = await started(headers, host=host, additional_auth="bearertokenauth")
    assert extension.header_changes(()) == {"authorization": "Bearer abc", "x-a": "1"}
    with pytest.raises(ValueError, match=r"additional_auth.*'missing'"):
        await started(headers, host=host, additional_auth="missing")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"key": "a"}, "exactly one of value, value_file, from_context and from_attribute is required, got none"),
        ({"key": "a", "value": "x", "from_context": "y"}, "got value and from_context"),
        ({"key": "a", "action": "delete", "value": "x"}, "action delete needs no value; remove value"),
        ({"key": "a", "value": "x", "default_value": "y"}, "default_value has no effect"),
        ({"key": "a:b", "value": "x"}, "'a:b' is not a valid name of a header"),
    ],
)
def test_impossible_settings_are_refused(header, message):
    """Each message says what to write."""
    with pytest.raises(ValueError, match=message):
        factory.config_type.model_validate({"headers": [header]})


async def test_each_request_of_an_exporter_has_the_header_of_its_data(http_requests):
    """Two tenants' batches are sent with their own headers; a configured header can be removed."""
    extension = await started(
        [{"key": "X-Scope-OrgID", "from_context": "x-tenant"}, {"action": "delete", "key": "x-removed"}]
    )
    config = otlp_http.config_type.model_validate(
        {
            "endpoint": http_requests.url,
            "compression": "none",
            "headers": {"x-removed": "1", "x-kept": "1"},
            "auth": {"authenticator": "headers_setter"},
        }
    )
    exporter = otlp_http.create(make_settings(otlp_http, signals={Signal.TRACES}), config)
    await exporter.start(FakeHost({"headers_setter": extension}))
    for tenant in ("a", "b"):
        context = Context(metadata=(("x-tenant", (tenant,)),))
        await exporter.consume(Traces(traces(spans=1).wire, context))
    await eventually(lambda: len(http_requests.headers) == 2)
    assert sorted(headers.get("x-scope-orgid") for headers in http_requests.headers) == ["a", "b"]
    assert all("x-removed" not in headers and headers["x-kept"] == "1" for headers in http_requests.headers)
    await exporter.shutdown()
