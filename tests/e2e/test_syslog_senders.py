"""rsyslogd and util-linux's logger send to the receivers syslog, tcp_log and udp_log."""

import asyncio
import shutil
from pathlib import Path

import pytest
from log_input_rig import ADDRESS, Running

from collector.testing import eventually
from receivers.syslog import factory as syslog
from receivers.tcp_log import factory as tcp_log

pytestmark = pytest.mark.e2e
PACKAGES = {"logger": "bsdutils", "rsyslogd": "rsyslog"}
RSYSLOG = """
module(load="builtin:omfwd")
module(load="imuxsock" SysSock.Use="off")
input(type="imuxsock" Socket="{folder}/log")
global(workDirectory="{folder}")
template(name="rfc5424" type="string" string="<%PRI%>1 %TIMESTAMP:::date-rfc3339% %HOSTNAME% %APP-NAME% %PROCID% %MSGID% %STRUCTURED-DATA% %msg%")
action(type="omfwd" target="127.0.0.1" port="{port}" protocol="tcp" TCP_Framing="octet-counted" template="rfc5424")
"""


def program(name):
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed (Debian: {PACKAGES[name]})")
    return path


async def run(*arguments):
    process = await asyncio.create_subprocess_exec(*arguments)
    assert await process.wait() == 0


@pytest.mark.parametrize(
    ("protocol", "transport", "options", "octets"),
    [
        ("rfc5424", "tcp", ["--tcp", "--rfc5424"], False),
        ("rfc5424", "tcp", ["--tcp", "--rfc5424", "--octet-count"], True),
        ("rfc5424", "udp", ["--udp", "--rfc5424"], False),
        ("rfc3164", "tcp", ["--tcp", "--rfc3164"], False),
        ("rfc3164", "udp", ["--udp", "--rfc3164"], False),
    ],
)
async def test_logger(protocol, transport, options, octets):
    """Messages of logger are parsed, over TCP and UDP, with and without octet counting."""
    logger = program("logger")
    config = {"protocol": protocol, transport: {"listen_address": ADDRESS}, "enable_octet_counting": octets}
    async with Running(syslog, config) as running:
        where = ["--server", "127.0.0.1", "--port", str(running.port)]
        await run(
            logger, *where, *options, "--priority", "local3.warning", "--tag", "shop", "--id=42", "a message: <ok>"
        )
        await eventually(lambda: running.sink.item_count == 1, timeout_s=10)
        (batch,) = running.sink.batches
        assert batch.field("severity_number").tolist() == [13]
        assert batch.field("time_unix_nano").min() > 0
        for key, value in (("facility_text", "local3"), ("appname", "shop"), ("proc_id", "42")):
            assert running.attribute(key) == [value]
        assert running.attribute("message") == ["a message: <ok>"]
        if protocol == "rfc5424":
            assert "timeQuality" in running.attribute("structured_data")[0]


async def test_logger_to_tcp_log():
    """Lines of logger over TCP are records as they are."""
    logger = program("logger")
    async with Running(tcp_log, {"listen_address": ADDRESS}) as running:
        where = ["--server", "127.0.0.1", "--port", str(running.port), "--tcp", "--rfc3164"]
        await run(logger, *where, "--tag", "x", "hello")
        await eventually(lambda: running.sink.item_count == 1, timeout_s=10)
        assert running.bodies()[0].endswith("x: hello")


async def test_rsyslogd(tmp_path):
    """rsyslogd forwards with octet counting what it receives."""
    rsyslogd, logger = program("rsyslogd"), program("logger")
    config = {"protocol": "rfc5424", "enable_octet_counting": True, "tcp": {"listen_address": ADDRESS}}
    async with Running(syslog, config) as running:
        configuration = tmp_path / "rsyslog.conf"
        configuration.write_text(RSYSLOG.format(folder=tmp_path, port=running.port))
        process = await asyncio.create_subprocess_exec(
            rsyslogd, "-n", "-f", str(configuration), "-i", str(tmp_path / "pid")
        )
        try:
            await eventually(lambda: Path(tmp_path / "log").exists(), timeout_s=10)
            for number in range(20):
                await run(logger, "--socket", str(tmp_path / "log"), "--tag", "shop", f"message {number}")
            await eventually(lambda: running.sink.item_count >= 20, timeout_s=20)
        finally:
            process.terminate()
            await process.wait()
        messages = [text.strip() for text in running.attribute("message") if text and "message" in text]
        assert messages == [f"message {number}" for number in range(20)]
