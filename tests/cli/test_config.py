"""Where a setting comes from, which values are refused, and that the message names the place where it was written."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend import config
from backend.config import SERVE_OPTIONS, default_data_dir, memory_size, resolve
from backend.errors import StartError
from scheduler.arms import ARMS

OTHERS = {
    "model": ("org/name", "other/name"),
    "host": ("127.0.0.2", "::1"),
    "port": ("81", "82"),
    "dtype": ("float32", "bfloat16"),
    "weights": ("int8", "auto"),
    "data-dir": ("/a", "/b"),
    "database": ("sqlite:////a.db", "sqlite:////b.db"),
    "kv-memory": ("1MiB", "2MiB"),
    "page-size": ("8", "32"),
    "max-running": ("3", "4"),
    "max-waiting": ("5", "6"),
    "max-step-tokens": ("128", "256"),
    "inter-token-ms": ("20", "30"),
    "isolation-ms": ("8", "9"),
    "overlap": ("off", "on"),
    "arm": ("paged", "static"),
    "threads": ("1", "2"),
    "allowed-hosts": ("a.example", "b.example,c.example"),
    "allowed-origins": ("https://a.example", "http://b.example:8080, https://[::1]"),
    "drain-seconds": ("3", "4"),
    "log-level": ("info", "error"),
    "log-format": ("json", "text"),
}


def write(folder: Path, text: str) -> Path:
    path = folder / "banyan.toml"
    path.write_text(text)
    return path


def test_defaults() -> None:
    options = resolve({}, {"XDG_DATA_HOME": "/data"})
    assert (options.model, options.host, options.port, options.dtype) == ("", "127.0.0.1", 8000, "auto")
    assert (options.kv_memory, options.page_size, options.max_running, options.threads) == (0, 0, 64, 0)
    assert (options.max_waiting, options.max_step_tokens, options.inter_token_ms) == (1024, 0, 0)
    assert (options.overlap, options.arm) == (True, "shared")


@pytest.mark.parametrize("option", SERVE_OPTIONS, ids=lambda option: option.name)
def test_precedence(option: config.Option, tmp_path: Path) -> None:
    """Command line over environment over file over default, for every option."""
    one, two = OTHERS[option.name]
    file = write(tmp_path, f"{option.name} = {one if one.isdigit() else repr(one)}\n")

    def settled(command_line: dict[str, str], environment: dict[str, str]) -> Any:
        return getattr(resolve(command_line, environment, file), option.field)

    assert settled({}, {}) == option.parse(one) != getattr(resolve({}, {}), option.field)
    assert settled({}, {option.variable: two}) == option.parse(two)
    assert settled({option.field: one}, {option.variable: two}) == option.parse(one)
    assert settled({}, {option.variable: ""}) == option.parse(one)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prot = 8000", ["banyan.toml", "'prot'", "'port'"]),
        ("kv_memory = '1GiB'", ["'kv_memory'", "'kv-memory'"]),
        ("zzz = 1", ["'zzz'", "known keys", "max-running"]),
        ("[tenants]\na = 1", ["'tenants'"]),
        ("port = 'x'", ["banyan.toml: port", "0 to 65535", "'x'"]),
        ("port = true", ["port", "True"]),
        ("port = 1.5", ["port", "1.5"]),
        ("dtype = 7", ["dtype", "float16"]),
        ("data-dir = 3", ["data-dir"]),
        ("port = ", ["banyan.toml", "TOML"]),
        ("host = 'example.org'", ["IP address"]),
        ("overlap = 1", ["banyan.toml: overlap", "on or off", "1"]),
        ("arm = true", ["arm", "continuous"]),
        ("max-step-tokens = 63", ["banyan.toml: max-step-tokens", "63 tokens", "64 requests", "max-running"]),
    ],
)
def test_file_errors(text: str, words: list[str], tmp_path: Path) -> None:
    with pytest.raises(StartError) as caught:
        resolve({}, {}, write(tmp_path, text))
    assert all(word in caught.value.message for word in words), caught.value.message


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"--config: cannot read .*missing\.toml"):
        resolve({}, {}, tmp_path / "missing.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(StartError, match="not valid TOML"):
        resolve({}, {}, tmp_path / "binary.toml")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("port", value) for value in ("-1", "65536", "http", "", "1e3", "٣", "9" * 40)),
        *(("page_size", value) for value in ("-1", "257")),
        *(("max_running", value) for value in ("0", "1025")),
        *(("max_waiting", value) for value in ("0", "1000001", "many")),
        *(("max_step_tokens", value) for value in ("-1", "1000001", "1.5")),
        *(("inter_token_ms", value) for value in ("-1", "60001", "fast")),
        *(("isolation_ms", value) for value in ("-1", "60001", "some")),
        *(("overlap", value) for value in ("yes", "true", "")),
        ("arm", "vllm"),
        *(("kv_memory", value) for value in ("lots", "1", "-1GiB", "1XiB", "nan", "1e9", "9999999TiB", "")),
        *(("host", value) for value in ("example.org", "", "127.0.0.1:80", "256.1.1.1")),
        *(("allowed_hosts", value) for value in ("a.example:80", "https://a.example", "a..b", "*.a.example", "a b")),
        *(("allowed_origins", value) for value in ("a.example", "https://a.example/", "*", "https://", "ftp://a")),
        ("dtype", "int8"),
        ("data_dir", ""),
        ("model", "a\nb"),
    ],
)
def test_wrong_values_name_option_and_value(field: str, value: str) -> None:
    with pytest.raises(StartError) as caught:
        resolve({field: value}, {})
    name = "MODEL" if field == "model" else "--" + field.replace("_", "-")
    assert caught.value.message.startswith(f"{name}: ")
    assert repr(value) in caught.value.message
    assert caught.value.code == "invalid_option"


def test_arms_are_the_schedulers() -> None:
    assert set(config.ARMS) == set(ARMS)


def test_a_switch_in_the_file_may_be_a_boolean(tmp_path: Path) -> None:
    assert resolve({}, {}, write(tmp_path, "overlap = false")).overlap is False
    assert resolve({"overlap": "on"}, {}, tmp_path / "banyan.toml").overlap is True


def test_lists_of_names(tmp_path: Path) -> None:
    """With commas, or as a list in the file; what browsers send in lower case is compared in lower case."""
    file = write(tmp_path, 'allowed-hosts = ["Chat.Example.com", "other"]\n')
    assert resolve({}, {}, file).allowed_hosts == ("chat.example.com", "other")
    assert resolve({"allowed_hosts": " Chat.Example.com , *,"}, {}).allowed_hosts == ("chat.example.com", "*")
    assert resolve({}, {}).allowed_hosts == resolve({}, {}).allowed_origins == ()
    with pytest.raises(StartError, match="allowed-hosts: host names"):
        resolve({}, {}, write(tmp_path, "allowed-hosts = [1]\n"))


def test_a_step_holds_a_token_of_each_running_request() -> None:
    assert resolve({"max_running": "1024"}, {}).max_step_tokens == 0  # chosen by the engine, never below max-running
    assert resolve({"max_running": "8", "max_step_tokens": "8"}, {}).max_step_tokens == 8
    with pytest.raises(StartError, match=r"^BANYAN_MAX_STEP_TOKENS: 7 tokens .* 8 requests") as caught:
        resolve({"max_running": "8"}, {"BANYAN_MAX_STEP_TOKENS": "7"})
    assert (caught.value.code, caught.value.param) == ("invalid_option", "max-step-tokens")


def test_environment_errors_name_the_variable() -> None:
    with pytest.raises(StartError, match=r"^BANYAN_MAX_RUNNING: "):
        resolve({}, {"BANYAN_MAX_RUNNING": "many"})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "8.8.8.8", "2001:db8::1"])
def test_only_loopback_without_keys(host: str) -> None:
    assert resolve({"host": host}, {}).host == host
    with pytest.raises(StartError) as caught:
        config.refuse_public_address(host, 0)
    assert caught.value.code == "public_address"
    assert all(word in caught.value.message for word in (host, "banyan tenant add", "banyan key add", "SSH tunnel"))
    config.refuse_public_address(host, 1)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback(host: str) -> None:
    found = resolve({"host": host}, {}).host
    assert found in (host, "127.0.0.1")
    config.refuse_public_address(found, 0)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("auto", 0),
        ("512MiB", 2**29),
        ("2GiB", 2**31),
        ("1.5 GB", 1_500_000_000),
        (2**20, 2**20),
        ("1048576B", 2**20),
        ("2gib", 2**31),
    ],
)
def test_memory_size(text: object, size: int) -> None:
    assert memory_size(text) == size


@given(st.text(max_size=12))
def test_memory_size_refuses_or_is_in_bounds(text: str) -> None:
    try:
        size = memory_size(text)
    except ValueError as error:
        assert "size" in str(error)
    else:
        assert size == 0 or 2**20 <= size <= 2**50


def test_data_dir_of_each_platform() -> None:
    home = Path("/h")
    assert default_data_dir("linux", {}, home) == Path("/h/.local/share/banyan")
    assert default_data_dir("linux", {"XDG_DATA_HOME": "/d"}, home) == Path("/d/banyan")
    assert default_data_dir("darwin", {}, home) == Path("/h/Library/Application Support/banyan")
    assert default_data_dir("win32", {"LOCALAPPDATA": "/l"}, home) == Path("/l/banyan")


def test_home_is_resolved() -> None:
    assert resolve({"data_dir": "~/x"}, {}).data_dir == Path.home() / "x"


def test_names_are_unique_and_on_the_struct() -> None:
    fields = [option.field for option in SERVE_OPTIONS]
    assert fields == list(config.ServeOptions.__struct_fields__)
    assert all(re.fullmatch(r"[a-z-]+", option.name) for option in SERVE_OPTIONS)
