"""How the keys of the queue's block work together."""

import pytest

from collector.delivery import ExporterConfig
from config.blocks import QueueConfig


@pytest.mark.parametrize(
    ("queue", "sizer"),
    [
        ({"batch": {}}, "items"),
        ({"sizer": "bytes", "batch": {}}, "bytes"),
        ({"sizer": "requests", "batch": {}}, "items"),
        ({"sizer": "bytes", "batch": {"sizer": "items"}}, "items"),
    ],
)
def test_unit_of_batch_sizes(queue, sizer):
    """The unit is the batch's own sizer, else the queue's if that was set, else items."""
    assert QueueConfig.model_validate(queue).batch_sizer == sizer


def test_a_small_queue_of_requests_may_batch_many_items():
    """Sizes in different units are not compared."""
    config = ExporterConfig.model_validate({"sending_queue": {"queue_size": 100, "batch": {}}})
    assert config.sending_queue.queue_size == 100
    with pytest.raises(ValueError, match="min_size"):
        ExporterConfig.model_validate({"sending_queue": {"sizer": "items", "queue_size": 100, "batch": {}}})
