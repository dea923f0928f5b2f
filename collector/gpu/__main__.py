"""``python -m collector.gpu FILE`` records this machine's GPUs into a file that ``backend: replay`` can play."""

import time
from pathlib import Path

import click

from collector.gpu.backend import BackendUnavailableError, LayoutChangedError
from collector.gpu.config import GpuSourceConfig
from collector.gpu.replay import record
from collector.gpu.sampler import make_backend

__all__ = ["main"]


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--seconds", default=60.0, show_default=True, type=click.FloatRange(0.1, 86400), help="How long to record."
)
@click.option(
    "--interval", default=0.1, show_default=True, type=click.FloatRange(0.01, 60), help="Seconds between two samples."
)
@click.option("--backend", default="nvml", show_default=True, type=click.Choice(["nvml", "simulated"]))
def main(file: Path, seconds: float, interval: float, backend: str) -> None:
    """Record the GPUs of this machine into FILE. Ctrl-C stops early and keeps what has been recorded."""
    source = make_backend(GpuSourceConfig.model_validate({"backend": backend}))
    count = max(2, round(seconds / interval))
    try:
        record(source, file, sample_count=count, interval_s=interval, time_unix_nano=time.time_ns, sleep=time.sleep)
    except BackendUnavailableError as exc:
        raise click.ClickException(str(exc)) from exc
    except LayoutChangedError as exc:
        raise click.ClickException(f"the set of GPUs changed during the recording; {file} ends at that point") from exc
    except OSError as exc:
        raise click.ClickException(f"{file}: {exc.strerror}") from exc
    except KeyboardInterrupt:
        click.echo(f"stopped early; {file} holds the samples up to now")


if __name__ == "__main__":
    main()
