"""The push messages as the reference with which the output of the encoder is read."""

import pytest
from reference_messages import message_class

MESSAGES = {
    "PushRequest": ["*Stream streams 1"],
    "Stream": ["string labels 1", "*Entry entries 2"],
    "Entry": ["Timestamp timestamp 1", "string line 2", "*Pair metadata 3"],
    "Timestamp": ["int64 seconds 1", "int64 nanos 2"],
    "Pair": ["string name 1", "string value 2"],
}


@pytest.fixture(scope="session")
def push_request():
    return message_class("PushRequest", MESSAGES)
