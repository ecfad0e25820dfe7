"""The server's settings, one table of options: the command line wins over environment, TOML file and default.

Knows every option's name, unit, default and bounds. Does not start anything and looks at no file but the given one;
what an option means for a package is that package's own business.
"""

import difflib
import ipaddress
import os
import re
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from backend.errors import StartError

ENVIRONMENT_PREFIX = "BANYAN_"

ARMS = ("shared", "paged", "continuous", "static")
"""Those of ``scheduler.arms``; the first is this project."""


class ServeOptions(msgspec.Struct, frozen=True):
    """What ``banyan serve`` was told. ``model`` empty: the bundled one. ``kv_memory`` in bytes, 0: the engine chooses.

    ``port`` 0: any free one. ``threads``, ``inter_token_ms``, ``isolation_ms``, ``max_step_tokens`` 0: chosen by the
    engine.
    """

    model: str
    host: str
    port: int
    dtype: str
    weights: str
    data_dir: Path
    database: str
    kv_memory: int
    page_size: int
    max_running: int
    max_waiting: int
    max_step_tokens: int
    inter_token_ms: int
    isolation_ms: int
    overlap: bool
    arm: str
    threads: int
    allowed_hosts: tuple[str, ...]
    allowed_origins: tuple[str, ...]
    drain_seconds: int
    log_level: str
    log_format: str


class Option(msgspec.Struct, frozen=True):
    """One setting. ``name`` as on the command line, without dashes in front; the same name is the key in the TOML file.

    ``parse`` takes what was written (a string, or a TOML value) and raises ``ValueError`` saying what is expected.
    """

    name: str
    metavar: str
    parse: Callable[[Any], Any]
    default: str | int
    help: str

    @property
    def field(self) -> str:
        """Attribute of ``ServeOptions``."""
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        """Environment variable."""
        return ENVIRONMENT_PREFIX + self.field.upper()


def whole_number(least: int, most: int) -> Callable[[Any], int]:
    """A parser of integers from ``least`` to ``most``."""

    def parse(value: Any) -> int:
        expected = f"a whole number from {least} to {most} is expected"
        if isinstance(value, str):
            if not re.fullmatch(r"-?[0-9]{1,12}", value.strip()):
                raise ValueError(expected)
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(expected)
        return value

    return parse


def one_of(*choices: str) -> Callable[[Any], str]:
    """A parser of one of a few words."""

    def parse(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"one of {', '.join(choices)} is expected")
        return str(value)

    return parse


def on_or_off(value: Any) -> bool:
    """``on`` or ``off``; in the TOML file also true or false."""
    if isinstance(value, bool):
        return value
    if value not in ("on", "off"):
        raise ValueError("on or off is expected")
    return bool(value == "on")


_UNITS = {
    "": 1,
    "B": 1,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}


def memory_size(value: Any) -> int:
    """Bytes from ``512MiB``, ``2GiB``, ``1.5 GB`` or a plain number of bytes; 0 for ``auto``."""
    expected = "a size such as 512MiB or 2GiB, or auto, is expected"
    text = str(value).strip()
    if text.lower() == "auto":
        return 0
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([A-Za-z]*)", text)
    if isinstance(value, bool) or match is None or match[2].upper() not in _UNITS:
        raise ValueError(expected)
    size = int(float(match[1]) * _UNITS[match[2].upper()])
    if not 2**20 <= size <= 2**50:
        raise ValueError(f"{expected}, from 1MiB to 1024TiB")
    return size


def text(value: Any) -> str:
    """A string without control characters."""
    if not isinstance(value, str) or any(ord(c) < 32 for c in value):
        raise ValueError("a line of text is expected")
    return value


def names_of(pattern: str, expected: str) -> Callable[[Any], tuple[str, ...]]:
    """A parser of words, in lower case, with commas between; in the TOML file also a list. Each matches ``pattern``."""

    def parse(value: Any) -> tuple[str, ...]:
        words = value.split(",") if isinstance(value, str) else value
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError(expected)
        found = tuple(word.strip().lower() for word in words if word.strip())
        if not all(re.fullmatch(pattern, word) for word in found):
            raise ValueError(expected)
        return found

    return parse


def folder(value: Any) -> Path:
    """A folder's path, ``~`` resolved; it need not exist."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("the path of a folder is expected")
    return Path(value).expanduser().absolute()


def address(value: Any) -> str:
    """An IP address or ``localhost``. Other names are refused: what they resolve to can change behind our back."""
    if value == "localhost":
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError("an IP address such as 127.0.0.1, or localhost, is expected") from None


def default_data_dir(platform: str, environment: Mapping[str, str], home: Path) -> Path:
    """Where programs of this platform keep a user's data.

    >>> str(default_data_dir("linux", {"XDG_DATA_HOME": "/data"}, Path("/home/eve")))
    '/data/banyan'
    """
    if platform == "darwin":
        return home / "Library" / "Application Support" / "banyan"
    if platform == "win32":
        return Path(environment.get("LOCALAPPDATA") or home / "AppData" / "Local") / "banyan"
    return Path(environment.get("XDG_DATA_HOME") or home / ".local" / "share") / "banyan"


MODEL = Option("model", "MODEL", text, "", "folder in Hugging Face format or hub id (org/name[@revision])")
DATA_DIR = Option("data-dir", "FOLDER", folder, "", "where downloaded models and the database are kept")
DATABASE = Option(
    "database",
    "URL",
    text,
    "",
    "where tenants, keys, prompts, usage and stored conversations are kept: postgresql://user@host/name or "
    "sqlite:////folder/file.db",
)
SERVE_OPTIONS = (
    MODEL,
    Option(
        "host",
        "ADDRESS",
        address,
        "127.0.0.1",
        "IP address to listen on; any but a loopback address needs tenants with keys",
    ),
    Option("port", "PORT", whole_number(0, 65535), 8000, "TCP port to listen on; 0 takes any free one"),
    Option(
        "dtype",
        "TYPE",
        one_of("auto", "float32", "bfloat16", "float16"),
        "auto",
        "number format of weights and KV pages: auto (what is fastest here), float32, bfloat16 or float16",
    ),
    Option(
        "weights",
        "FORMAT",
        one_of("auto", "int8"),
        "auto",
        "number format of the weights alone: auto (that of --dtype), or int8 with a scale per output (CPU only: less "
        "memory, faster decoding, small errors)",
    ),
    DATA_DIR,
    DATABASE,
    Option(
        "kv-memory",
        "SIZE",
        memory_size,
        "auto",
        "memory for KV pages, such as 512MiB or 2GiB; auto: a share of the memory that is free",
    ),
    Option(
        "page-size",
        "TOKENS",
        whole_number(0, 256),
        0,
        "tokens in one KV page, the unit of sharing; 0 is 16 on a CPU and 64 on a GPU",
    ),
    Option("max-running", "REQUESTS", whole_number(1, 1024), 64, "most requests computed in one step"),
    Option(
        "max-waiting",
        "REQUESTS",
        whole_number(1, 1_000_000),
        1024,
        "most requests that wait for their turn; more are refused, and told when to come again",
    ),
    Option(
        "max-step-tokens",
        "TOKENS",
        whole_number(0, 1_000_000),
        0,
        "most tokens computed in one step, of prompts and answers together; at least max-running; 0 is 512 on a "
        "CPU and 8192 on a GPU, or max-running where that is more",
    ),
    Option(
        "inter-token-ms",
        "MS",
        whole_number(0, 60_000),
        0,
        "aim for the time between two tokens of an answer, in milliseconds: new prompts are computed in pieces so "
        "small that a step keeps to it; 0: chosen for the device",
    ),
    Option(
        "isolation-ms",
        "MS",
        whole_number(0, 60_000),
        0,
        "longest step, in milliseconds, that prompts of a tenant may make which uses most of the engine while others "
        "want little: shorter steps, sooner first tokens for them, less throughput for it; 0: a quarter of "
        "inter-token-ms; as much as that or more: never",
    ),
    Option(
        "overlap",
        "on|off",
        on_or_off,
        "on",
        "plan the next step while one is computed; off: a little slower, easier to follow",
    ),
    Option(
        "arm",
        "NAME",
        one_of(*ARMS),
        "shared",
        "for comparisons: who gets KV pages when, and who shares them: shared (this project), or as earlier systems "
        "did it: paged (vLLM's paper, nothing shared), continuous (Orca), static (whole batches)",
    ),
    Option("threads", "THREADS", whole_number(0, 1024), 0, "threads of the forward pass on the CPU; 0: chosen here"),
    Option(
        "allowed-hosts",
        "NAMES",
        names_of(
            r"\*|[a-z0-9_-]+(\.[a-z0-9_-]+)*", "host names without ports such as chat.example.com, or *, are expected"
        ),
        "",
        "names that this server is called by in requests, with commas between; addresses and localhost always are. "
        "Without it: only these while there are no keys, any name once there are",
    ),
    Option(
        "allowed-origins",
        "ORIGINS",
        names_of(
            r"https?://(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(:[0-9]{1,5})?",
            "origins such as https://chat.example.com are expected",
        ),
        "",
        "pages besides our own that may call from a browser, with commas between, such as https://app.example.com",
    ),
    Option(
        "drain-seconds",
        "SECONDS",
        whole_number(0, 3600),
        30,
        "how long open answers may go on after SIGTERM or Ctrl-C; a second signal ends them at once",
    ),
    Option(
        "log-level",
        "LEVEL",
        one_of("error", "warning", "info", "debug"),
        "warning",
        "what is logged: from info on a line for each request and each refusal, with tenant, tokens and times, "
        "never with text",
    ),
    Option(
        "log-format",
        "text|json",
        one_of("text", "json"),
        "text",
        "text goes to stderr; json, an object a line, to stdout, where nothing else goes",
    ),
)


def read_config_file(path: Path) -> dict[str, Any]:
    """The TOML file's settings by option name. Raises ``StartError`` naming the file, and the key that is not known."""
    try:
        with path.open("rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise StartError(f"--config: cannot read {path}: {error.strerror}", param="config") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StartError(f"--config: {path} is not valid TOML: {error}", param="config") from error
    known = [option.name for option in SERVE_OPTIONS]
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key.replace("_", "-"), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
            raise StartError(f"{path}: unknown key {key!r}; {hint}", code="unknown_option", param=key)
    return table


def resolve(
    command_line: Mapping[str, str | None],
    environment: Mapping[str, str] = os.environ,
    config_file: Path | None = None,
) -> ServeOptions:
    """Settle every option: command line, then environment, then file, then default.

    ``command_line`` maps fields of ``ServeOptions`` to what was written, None where nothing was. Raises ``StartError``
    that names the option where it was written.
    """
    settled, origins = _settle(SERVE_OPTIONS, command_line, environment, config_file)
    options = ServeOptions(**settled)
    refuse_small_steps(options, origins["max_step_tokens"])
    return options


def resolve_database(
    command_line: Mapping[str, str | None],
    environment: Mapping[str, str] = os.environ,
    config_file: Path | None = None,
) -> tuple[str, Path]:
    """The database as written, and the data directory, as ``resolve`` finds them. Raises ``StartError``."""
    settled, _ = _settle((DATA_DIR, DATABASE), command_line, environment, config_file)
    return settled["database"], settled["data_dir"]


def _settle(
    options: tuple[Option, ...],
    command_line: Mapping[str, str | None],
    environment: Mapping[str, str],
    config_file: Path | None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Values of ``options`` by field, and where each was written."""
    table = read_config_file(config_file) if config_file is not None else {}
    settled: dict[str, Any] = {}
    origins: dict[str, str] = {}
    value: Any
    for option in options:
        if (value := command_line.get(option.field)) is not None:
            origin = "MODEL" if option is MODEL else f"--{option.name}"
        elif environment.get(option.variable):
            value, origin = environment[option.variable], option.variable
        elif option.name in table:
            value, origin = table[option.name], f"{config_file}: {option.name}"
        elif option is DATA_DIR:
            settled[option.field] = default_data_dir(sys.platform, environment, Path.home())
            continue
        else:
            value, origin = option.default, f"default of {option.name}"
        origins[option.field] = origin
        try:
            settled[option.field] = option.parse(value)
        except ValueError as error:
            message = f"{origin}: {error}, not {value!r}"
            raise StartError(message, code="invalid_option", param=option.name) from None
    return settled, origins


def refuse_small_steps(options: ServeOptions, origin: str) -> None:
    """Raise ``StartError`` when a step is not to hold one token of each running request. ``origin``: who says so."""
    if 0 < options.max_step_tokens < options.max_running:
        raise StartError(
            f"{origin}: {options.max_step_tokens} tokens are fewer than the {options.max_running} requests of "
            "max-running, and each of them may compute a token in every step; make one larger or the other smaller",
            code="invalid_option",
            param="max-step-tokens",
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    return ipaddress.ip_address(host).is_loopback


def refuse_public_address(host: str, live_keys: int) -> None:
    """Raise ``StartError`` when others reach the address and no key tells who asks."""
    if not live_keys and not is_loopback(host):
        raise StartError(
            f"host {host}: without tenants and their keys anybody who reaches this address could use the model. "
            "Add a tenant and a key first (banyan tenant add NAME, then banyan key add NAME), or listen on a loopback "
            "address only (127.0.0.1, ::1) and reach it through an SSH tunnel (ssh -L 8000:127.0.0.1:8000 "
            "THIS_MACHINE).",
            code="public_address",
            param="host",
        )
