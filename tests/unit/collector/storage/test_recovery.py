"""What is found again after a crash or damage at any byte. The model is a dictionary of what was stored and settled."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collector.storage.records import RECORD_HEADER_BYTES, TRAILER_BYTES, VERSION, crc32, new_marker
from collector.storage.segment import segment_name
from collector.testing import eventually, traces


async def contents(queue):
    """The batches that can be read, by key, and how many cannot."""
    found, damaged = {}, 0
    for each in await queue.after(-1, 10_000):
        try:
            found[each.key] = (await queue.read(each.key)).wire
        except OSError:
            damaged += 1
    return found, damaged


def one(count):
    return traces(spans=count, seed=count)


async def filled(disk, stored, *, is_complete):
    """Ten batches on the disk, of which two are settled: in a complete segment, or in one that is being written."""
    async with disk.opened() as queue:
        keys = await stored(queue, *(one(n) for n in range(1, 11)))
        model = {key: one(n).wire for key, n in zip(keys, range(1, 11), strict=True)}
        for key in (keys[2], keys[7]):
            queue.ack(key)
            del model[key]
        if not is_complete:
            await eventually(lambda: disk.files(".acks"))
            await eventually(lambda: disk.files(".acks")[0].stat().st_size > keys[7])
            return disk.crashed(disk.folder.with_name("crashed")), model
    return disk.crashed(disk.folder.with_name("crashed")), model


@pytest.fixture
def filled_disk(disk, stored, tmp_path):
    """A copy of a disk that was filled once, what is on it, and the content of its segment."""
    made = []

    async def copy(*, is_complete):
        if not made:
            made.append(await filled(disk, stored, is_complete=is_complete))
        crashed, model = made[0]
        fresh = crashed.crashed(tmp_path / "copy")
        (path,) = fresh.files(".seg")
        content = path.read_bytes()
        if not is_complete:  # what is allocated ahead is no part of it
            content = content[: content.rfind(one(10).wire) + one(10).size_bytes]
        return fresh, model, path, content

    return copy


@pytest.mark.parametrize("is_complete", [True, False])
async def test_undamaged_files_give_what_is_not_settled(disk, stored, is_complete):
    """In either state of the segment; a crash needs no repair that anybody would notice."""
    crashed, model = await filled(disk, stored, is_complete=is_complete)
    for _ in range(2):
        async with crashed.opened() as queue:
            assert await contents(queue) == (model, 0)
            assert queue.totals.batch_count == len(model)
    assert crashed.telemetry.log.of_level("error") == []


@pytest.mark.parametrize("is_complete", [True, False])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255), length=st.integers(1, 40))
async def test_damage_costs_no_more_than_the_records_it_hits(filled_disk, is_complete, place, flip, length):
    """Whatever byte is hit, opening succeeds, nothing wrong is delivered, and at most the records hit are lost."""
    crashed, model, path, content = await filled_disk(is_complete=is_complete)
    content = bytearray(content)
    start = int(place * len(content))
    for at in range(start, min(start + length, len(content))):
        content[at] ^= flip
    path.write_bytes(content)
    sizes = [len(wire) for wire in model.values()]
    async with crashed.opened() as queue:
        found, damaged = await contents(queue)
        assert found.items() <= model.items(), "nothing is delivered that was not stored, or is settled"
        lost = len(model) - len(found)
        assert lost <= 2
        assert damaged <= lost
        assert min(sizes) > length
    if lost:
        assert any("damaged" in event or "discarded" in event for event in crashed.logged)


@pytest.mark.parametrize("is_complete", [True, False])
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1))
async def test_a_truncated_file_gives_what_is_left(filled_disk, is_complete, place):
    """As after a power failure: all records before the cut are there."""
    crashed, model, path, content = await filled_disk(is_complete=is_complete)
    cut = int(place * len(content))
    path.write_bytes(content[:cut])
    whole = {key: wire for key, wire in model.items() if content.find(wire) + len(wire) <= cut}
    async with crashed.opened() as queue:
        assert await contents(queue) == (whole, 0)
    async with crashed.opened() as queue:
        assert await contents(queue) == (whole, 0)


async def test_random_operations_with_crashes_agree_with_a_dictionary(disk, stored, tmp_path):
    """Stored is stored, settled is settled once it is written; a crash at any moment changes neither."""
    rng = random.Random(7)
    model, settled = {}, {}
    for life in range(12):
        after_crash = None
        async with disk.opened(max_size_bytes=rng.choice([0, 2_000_000])) as queue:
            found, damaged = await contents(queue)
            assert damaged == 0
            again = found.items() - model.items()
            assert again <= settled.items(), "only what was settled just before the crash may come back"
            assert model.items() <= found.items()
            settled = {key: found[key] for key in found.keys() - model.keys()}
            for key in settled:
                queue.ack(key)
            for _ in range(rng.randrange(40)):
                if model and rng.random() < 0.5:
                    key = rng.choice(list(model))
                    queue.ack(key)
                    settled[key] = model.pop(key)
                else:
                    for key in await stored(queue, *(one(rng.randrange(1, 60)) for _ in range(rng.randrange(1, 5)))):
                        model[key] = (await queue.read(key)).wire
            if rng.random() < 0.7:
                after_crash = disk.crashed(tmp_path / f"life{life}")
            else:
                settled = {}
        if after_crash is not None:
            disk = after_crash
    assert model


async def test_a_segment_of_a_newer_release_is_left_alone(disk, stored):
    """It is named in the log, and what this release wrote is delivered."""
    crashed, model = await filled(disk, stored, is_complete=True)
    (path,) = crashed.files(".seg")
    newer = bytearray(path.read_bytes())
    newer[8:10] = (VERSION + 1).to_bytes(2, "little")
    newer[12:16] = crc32(bytes(newer[16:24]), VERSION + 1).to_bytes(4, "little")
    other = path.with_name(segment_name(1000, new_marker()))
    other.write_bytes(newer)
    async with crashed.opened() as queue:
        assert (await contents(queue))[0] == model
        (key,) = await stored(queue, one(5))
        assert key > 1000
    assert other.read_bytes() == newer
    (event,) = crashed.telemetry.log.of_level("error")
    assert event.fields["problem"] == f"it has version {VERSION + 1} of the format, and this release knows version 1"


async def test_a_file_that_is_no_segment_is_put_aside(disk, stored):
    """Start-up is not stopped by it; the metric has its size."""
    crashed, model = await filled(disk, stored, is_complete=True)
    path = crashed.files(".seg")[0].with_name(segment_name(900, new_marker()))
    path.write_bytes(b"x" * 5000)
    async with crashed.opened() as queue:
        assert (await contents(queue))[0] == model
    assert [each.name for each in crashed.files(".corrupt")] == [path.name + ".corrupt"]
    assert crashed.damaged_bytes == 5000


async def test_settled_batches_of_another_segment_are_not_applied(disk, stored):
    """Acknowledgements whose segment is gone would settle the batches of a new one with the same name."""
    folder = disk.folder / "queues" / "q"
    async with disk.opened() as queue:
        assert queue.totals.batch_count == 0
    orphan = (folder / segment_name(0, new_marker())).with_suffix(".acks")
    orphan.write_bytes(b"\xa5" * 100)
    async with disk.opened() as queue:
        assert not orphan.exists()
        await stored(queue, one(3))
    async with disk.opened() as queue:
        assert queue.totals.item_count == 3


async def test_a_sender_cannot_forge_a_record(disk, stored):
    """A body that contains a whole segment stays a body, also when the file has to be searched for records."""
    other = disk.folder.with_name("other")
    forged = type(disk)(other)
    async with forged.opened() as queue:
        await stored(queue, one(9))
    body = forged.files(".seg")[0].read_bytes()
    carrier = one(1)
    carrier.wire = body * 3
    async with disk.opened() as queue:
        await stored(queue, one(2), carrier, one(3))
        crashed = disk.crashed(disk.folder.with_name("crashed"))
    (path,) = crashed.files(".seg")
    content = bytearray(path.read_bytes())
    place = content.find(body)
    content[place - 1] ^= 1  # the header of the carrier is damaged, so its end is not known
    path.write_bytes(content)
    async with crashed.opened() as queue:
        found, _ = await contents(queue)
        assert list(found.values()) == [one(2).wire, one(3).wire]
    assert crashed.damaged_bytes > len(body)


def spoil(content, place, size=3):
    for at in range(place, place + size):
        content[at] ^= 0x55


@pytest.mark.parametrize("is_complete", [True, False])
async def test_the_items_of_damaged_records_are_counted(disk, stored, is_complete):
    """Exactly if their headers are intact, or the trailer of the segment is; without what was settled."""
    crashed, _ = await filled(disk, stored, is_complete=is_complete)
    (path,) = crashed.files(".seg")
    content = bytearray(path.read_bytes())
    for count in (3, 5, 6):  # 3 is settled
        spoil(content, content.find(one(count).wire) + 20)
    if is_complete:
        spoil(content, len(content) - TRAILER_BYTES - 10)
    path.write_bytes(content)
    async with crashed.opened() as queue:
        assert queue.lost_item_count == 5 + 6
        assert queue.totals.item_count == 55 - 3 - 8 - 5 - 6
    async with crashed.opened() as queue:
        assert queue.lost_item_count == 0, "the second start knows nothing of it"


async def test_the_items_of_records_without_a_header_are_estimated(disk, stored):
    """As many records are missing as keys, and each had about as many items as the others."""
    async with disk.opened() as queue:
        await stored(queue, *(one(10) for _ in range(10)))
        crashed = disk.crashed(disk.folder.with_name("crashed"))
    (path,) = crashed.files(".seg")
    content = bytearray(path.read_bytes())
    second = content.find(one(10).wire, content.find(one(10).wire) + 1)
    spoil(content, second - RECORD_HEADER_BYTES - 5, RECORD_HEADER_BYTES + one(10).size_bytes)
    path.write_bytes(content)
    async with crashed.opened() as queue:
        lost = 10 - queue.totals.batch_count
        assert queue.lost_item_count == 10 * lost > 0


async def test_the_items_of_a_segment_of_which_nothing_is_left_come_from_its_trailer(disk, stored):
    crashed, _ = await filled(disk, stored, is_complete=True)
    (path,) = crashed.files(".seg")
    content = bytearray(path.read_bytes())
    spoil(content, 10, len(content) - TRAILER_BYTES - 10)
    path.write_bytes(content)
    async with crashed.opened() as queue:
        assert queue.totals.item_count == 0
        assert queue.lost_item_count == round(55 * 8 / 10), "two of ten batches were settled"
