"""The remote-write messages as the reference with which the output of the encoder is read."""

import pytest
from reference_messages import message_class
from remote_write_rules import V1, V2


@pytest.fixture(scope="session")
def write_request():
    return message_class("WriteRequest", V1)


@pytest.fixture(scope="session")
def write_request_v2():
    return message_class("Request", V2)
