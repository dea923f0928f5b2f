"""Templates of request paths."""

import pytest

from collector.text.path_template import template_path


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/users/123", "/users/{id}"),
        ("/users/me", "/users/me"),
        ("/a/0c29a1c5-7b5e-4bd0-9d64-51ec1c4f8b2b/b", "/a/{id}/b"),
        ("/o/01ARZ3NDEKTSV4RRFFQ69G5FAV", "/o/{id}"),
        ("/h/deadbeef01", "/h/{id}"),
        ("/h/deadbeef", "/h/deadbeef"),
        ("/m/a@b.example", "/m/{id}"),
        ("/v1/embed", "/v1/embed"),
        ("", ""),
        ("/" + "1" * 1000, "/" + "1" * 1000),
    ],
)
def test_shape(path, shape):
    """Only identifiers are replaced, and not segments that are too long."""
    assert template_path(path) == shape
