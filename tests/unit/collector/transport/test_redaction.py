"""A client's configured secrets never appear in messages."""

import pytest

from collector.transport.redaction import Redactor, without_credentials


def test_secrets_and_the_token_in_them_are_replaced():
    redactor = Redactor(["Bearer abcdefghijk", "hunter22"])
    assert (
        redactor.text("sent Bearer abcdefghijk, abcdefghijk and hunter22")
        == "sent [REDACTED], [REDACTED] and [REDACTED]"
    )


def test_credentials_in_urls_are_replaced_in_both_forms():
    redactor = Redactor([], ["http://user1:p%40ssw0rd@host/x?api_key=k1234", "http://t0ken@host/"])
    assert (
        redactor.text("user1 p%40ssw0rd p@ssw0rd api_key=k1234 t0ken host")
        == "user1 [REDACTED] [REDACTED] [REDACTED] [REDACTED] host"
    )


def test_short_values_do_not_blank_out_words():
    assert Redactor(["1", "on", ""]).text("on host 1") == "on host 1"


def test_a_short_secret_inside_a_word_is_not_replaced():
    """ "la[REDACTED]" would show what the secret is."""
    redactor = Redactor(["test", "Basic dG9wczEyMzQ="])
    assert (
        redactor.text("the latest (test), key=test&x; contest") == "the latest ([REDACTED]), key=[REDACTED]&x; contest"
    )
    assert redactor.text("xBasic dG9wczEyMzQ=x") == "x[REDACTED]x"


def test_an_excerpt_is_one_short_printable_line():
    redactor = Redactor(["hunter22"])
    assert redactor.excerpt(b"a\r\n\x1b[31m b\xff hunter22") == "a [31m b� [REDACTED]"
    assert len(redactor.excerpt("x" * 5000)) == 201
    assert redactor.excerpt(b"") == ""


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://u:p@h:1/x?key=1#f", "http://h:1/x"),
        ("https://h/v1/traces", "https://h/v1/traces"),
        ("http://u:p@[::1]:4318/", "http://[::1]:4318/"),
    ],
)
def test_urls_are_shown_without_credentials(url, shown):
    assert without_credentials(url) == shown
