"""Profiles show where the process spends its time, and refused paths say why."""

import asyncio
import gzip
import sys
import tracemalloc

import aiohttp
import pytest

from collector.testing import FakeClock, FakeHost, eventually, make
from extensions.pprof import factory
from extensions.pprof.profile import Frame, ProfileBuilder, profile_type
from extensions.pprof.sampler import CPUSampler


def parse(body):
    """(names of the sample types, [(stack of function names, values)], profile)."""
    profile = profile_type().FromString(gzip.decompress(body))
    texts = list(profile.string_table)
    functions = {function.id: texts[function.name] for function in profile.function}
    locations = {location.id: functions[location.line[0].function_id] for location in profile.location}
    samples = [
        ([locations[location] for location in sample.location_id], list(sample.value)) for sample in profile.sample
    ]
    return [texts[kind.type] for kind in profile.sample_type], samples, profile


def burn_until(condition):
    """Use the CPU until the condition holds."""
    while not condition():
        sum(number * number for number in range(2_000))


async def started(clock=None, **options):
    config = factory.config_type.model_validate({"endpoint": "127.0.0.1:0", **options})
    extension = make(factory, config, clock=clock or FakeClock())
    await extension.start(FakeHost())
    return extension


async def get(extension, path, method="GET"):
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"http://127.0.0.1:{extension.port}/debug/pprof/{path}") as response,
    ):
        return response.status, await response.read()


async def test_the_cpu_profile_shows_the_function_that_used_the_cpu():
    """Most of the time is attributed to the busy function, and idle threads add nothing."""
    clock = FakeClock()
    extension = await started(clock)
    answer = asyncio.ensure_future(get(extension, "profile?seconds=5"))
    await eventually(lambda: extension._sampler is not None)
    burn_until(lambda: extension._sampler.sample_count >= 5)
    assert (await get(extension, "profile?seconds=5"))[0] == 409
    await clock.advance(5)
    status, body = await answer
    assert status == 200
    kinds, samples, profile = parse(body)
    assert kinds == ["samples", "cpu"]
    total_ns = sum(values[1] for _, values in samples)
    busy_ns = sum(values[1] for stack, values in samples if "burn_until" in stack)
    assert 0 < total_ns / 2 < busy_ns
    assert profile.period == 10_000_000
    assert profile.duration_nanos > 0
    assert extension._sampler is None
    await extension.shutdown()
    await extension.shutdown()


@pytest.mark.parametrize("seconds", ["0", "301", "-1", "x", "1e3", "9" * 20])
async def test_impossible_durations_are_refused(seconds):
    """The number of seconds is bounded, because sampling costs time."""
    extension = await started()
    status, body = await get(extension, f"profile?seconds={seconds}")
    assert (status, body) == (400, b"seconds: expected a number between 1 and 300\n")
    await extension.shutdown()


async def test_a_shutdown_ends_a_profile_in_progress():
    """The client gets no profile, and no thread stays."""
    extension = await started()
    answer = asyncio.ensure_future(get(extension, "profile"))
    await eventually(lambda: extension._sampler is not None)
    sampler = extension._sampler
    await extension.shutdown()
    assert not sampler._thread.is_alive()
    with pytest.raises(aiohttp.ClientError):
        await answer


async def test_goroutine_shows_threads_and_tasks():
    """Each task is shown with the function in which it waits, as a profile and as text."""

    async def waits_in_vain():
        await asyncio.Event().wait()

    async def outer():
        await waits_in_vain()

    task = asyncio.create_task(outer(), name="patient\x1b[31m")
    extension = await started()
    kinds, samples, profile = parse((await get(extension, "goroutine"))[1])
    assert kinds == ["goroutine"]
    (stack,) = [stack for stack, _ in samples if any(name.endswith("waits_in_vain") for name in stack)]
    assert [name.rpartition(".")[2] for name in stack] == ["wait", "waits_in_vain", "outer"]
    assert "MainThread" in profile.string_table
    text = (await get(extension, "goroutine?debug=1"))[1].decode()
    assert "task patient\\x1b[31m:\n" in text
    assert "thread MainThread:\n" in text
    task.cancel()
    await extension.shutdown()


async def test_heap_is_available_with_tracemalloc():
    """Without it, the answer says how to switch it on."""
    extension = await started()
    status, body = await get(extension, "heap")
    assert status == 404
    assert b"PYTHONTRACEMALLOC=10" in body
    tracemalloc.start(5)
    try:
        held = [bytes(1000) for _ in range(1000)]
        kinds, samples, _ = parse((await get(extension, "heap"))[1])
    finally:
        tracemalloc.stop()
    assert kinds == ["inuse_objects", "inuse_space"]
    own = [values for stack, values in samples if stack[0].startswith(__file__)]
    assert max(size for _, size in own) >= 1000 * len(held)
    await extension.shutdown()


@pytest.mark.parametrize("name", ["allocs", "block", "mutex", "symbol", "threadcreate", "trace"])
async def test_what_python_cannot_show_is_refused_by_name(name):
    """The answer says why there is no such profile."""
    extension = await started()
    status, body = await get(extension, name)
    assert status == 404
    assert body.startswith(f"/debug/pprof/{name} is not available: ".encode())
    await extension.shutdown()


async def test_the_index_and_the_command_line(monkeypatch):
    """The index lists the paths; the command line has no values."""
    monkeypatch.setattr(sys, "argv", ["tailrace", "--set", "a.token=s3cret"])
    extension = await started()
    assert b"/debug/pprof/profile?seconds=30" in (await get(extension, ""))[1]
    assert await get(extension, "cmdline") == (200, b"tailrace\0--set\0a.token=[REDACTED]")
    assert (await get(extension, "nothing"))[0] == 404
    assert (await get(extension, "profile", "POST"))[0] == 405
    await extension.shutdown()


async def test_save_to_file_has_the_whole_run(tmp_path):
    """The file is written at shutdown; until then, no other CPU profile is available."""
    path = tmp_path / "run.pb.gz"
    extension = await started(save_to_file=str(path))
    assert (await get(extension, "profile"))[0] == 409
    burn_until(lambda: extension._sampler.sample_count >= 3)
    await extension.shutdown()
    kinds, samples, _ = parse(path.read_bytes())
    assert kinds == ["samples", "cpu"]
    assert any("burn_until" in stack for stack, _ in samples)


async def test_a_file_that_cannot_be_written_refuses_the_start(tmp_path):
    """The message names the key."""
    with pytest.raises(ValueError, match="extensions::pprof::save_to_file: cannot write"):
        await started(save_to_file=str(tmp_path / "missing" / "run.pb.gz"))


def test_stacks_beyond_the_limit_are_counted_together():
    """The memory of the sampler is bounded; no time is lost."""
    sampler = CPUSampler(stacks_max=2)
    code = test_stacks_beyond_the_limit_are_counted_together.__code__
    for line in (1, 2, 3, 4):
        sampler._add(((code, line),), 10)
    sampler.start()
    _, samples, _ = parse(sampler.stop())
    assert sorted((stack[-1].rpartition(".")[2], values) for stack, values in samples if values[1] in (10, 20)) == [
        ("(stacks beyond the limit)", [2, 20]),
        ("test_stacks_beyond_the_limit_are_counted_together", [1, 10]),
        ("test_stacks_beyond_the_limit_are_counted_together", [1, 10]),
    ]


def test_a_profile_names_each_text_once():
    """Functions and locations are shared by samples; place 0 of the texts is empty."""
    builder = ProfileBuilder(("a", "count"))
    stack = [Frame("f", "x.py", 1), Frame("g", "x.py", 2)]
    builder.add(stack, [1], kind="k")
    builder.add(stack[1:], [2])
    kinds, samples, profile = parse(builder.build(time_unix_nano=7))
    assert (kinds, samples) == (["a"], [(["f", "g"], [1]), (["g"], [2])])
    assert list(profile.string_table) == ["", "a", "count", "f", "x.py", "g", "kind", "k"]
    assert len(profile.function) == len(profile.location) == 2
    assert profile.time_nanos == 7
