"""What tells whether files that a configuration names were replaced."""

from pydantic import Field

from collector.service.keeping import states_of_files
from config.blocks import ComponentConfig, TLSServerConfig


class Config(ComponentConfig):
    """Nested as real configurations are."""

    tls: TLSServerConfig | None = None
    more: tuple[TLSServerConfig, ...] = ()
    by_name: dict[str, TLSServerConfig] = Field(default_factory=dict)
    password_file: str = ""


def test_a_replaced_file_changes_the_state(tmp_path):
    """It is found wherever the configuration names it."""
    path = tmp_path / "cert.pem"
    path.write_text("a")
    tls = TLSServerConfig(cert_file=str(path), key_file=str(path))
    for config in (Config(tls=tls), Config(more=(tls,)), Config(by_name={"x": tls}), Config(password_file=str(path))):
        before = states_of_files(config)
        assert before == states_of_files(config)
        assert before.keys() == {str(path)}
        replacement = tmp_path / "new.pem"
        replacement.write_text("b")
        replacement.replace(path)
        assert states_of_files(config) != before
    path.unlink()
    assert states_of_files(Config(tls=tls)) == {str(path): None}
    assert states_of_files(Config()) == {}
