"""Settings of a lab: argument > environment (AUTOM8_…) > YAML > preset > default."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from ..addresses import Address, is_address
from ..errors import ConfigurationError, did_you_mean
from ..records import EmbeddingBackend, Fusion, Metric, VectorEngine
from ..validation import path_value, shortened
from .sources import PREFIX, environment, find_upwards, read_yaml, settings_of, strays

Check = Callable[[Any], Any]
PRESETS: dict[str, dict[str, Any]] = {
    "development": {"synchronous": "NORMAL"},
    "testing": {"db_path": ":memory:", "embedding_model": "hash", "synchronous": "OFF"},
    "production": {"synchronous": "FULL", "max_connections": 20},
}


class LabConfig(BaseSettings):
    """Every setting of a lab. Build it with `LabConfig.load`, which knows the sources and their order."""

    model_config = SettingsConfigDict(env_prefix="AUTOM8_", env_ignore_empty=True, extra="forbid", frozen=True)

    db_path: str = Field("autom8.db", description="The SQLite file, :memory:, or postgresql://user@host/database.")
    read_only: bool = Field(False, description="Open without writing anything, the access log included.")
    agent: str | None = Field(None, description="Who reads and searches; kept in the access log.")
    embedding_model: str = Field(
        "all-MiniLM-L6-v2",
        description="A sentence-transformers name, a local folder, or 'hash' (deterministic, for tests).",
    )
    embedding_dimensions: int | None = Field(None, gt=0, description="Refuse a model of another size.")
    embedding_device: str | None = Field(None, description="cpu, cuda, mps …; chosen by itself when empty.")
    embedding_backend: EmbeddingBackend = Field(
        "auto", description="What runs a model: onnx (a graph exported once), torch, or auto (onnx where it can)."
    )
    cache_dir: str | None = Field(None, description="Folder of exported models; the platform's own when empty.")
    chunk_tokens: int = Field(250, ge=8, description="Longest chunk, in tokens of the embedding model.")
    chunk_overlap_tokens: int = Field(50, ge=0, description="Tokens that neighbouring chunks share.")
    chunk_format: Literal["auto", "markdown", "plain"] = Field(
        "auto", description="How long texts are split: auto, markdown or plain."
    )
    metric: Metric = Field("cosine", description="Similarity of vectors: cosine, l2 (1/(1+distance)) or dot.")
    vector_engine: VectorEngine = Field("auto", description="auto, exact, sqlite-vec or hnsw.")
    hnsw_from_chunks: int = Field(
        50_000, gt=0, description="From so many chunks on, auto searches an HNSW index beside the file."
    )
    fusion: Fusion = Field("scores", description="How hybrid search joins its rankings: scores or rrf.")
    text_weight: float = Field(0.5, ge=0, le=1, description="Text ranker's share of a hybrid score; vectors: the rest.")
    text_column_weights: dict[Literal["content", "topic", "summary"], Annotated[float, Field(ge=0, le=1_000)]] = Field(
        default_factory=dict, description="How much a word counts in text search, by where it stands; 1 if not named."
    )
    candidates: int = Field(100, ge=1, le=10_000, description="How deep each ranking is read before they are joined.")
    similarity_threshold: float | None = Field(
        None, ge=-1, description="min_similarity of semantic and hybrid searches that give none."
    )
    cache_size: int = Field(10_000, gt=0, description="Pages that each connection caches.")
    max_connections: int = Field(8, gt=0, description="Pooled reading connections; the writer is one more.")
    busy_timeout_ms: int = Field(1_000, ge=0, description="How long SQLite itself waits for a lock, per try.")
    deadline_seconds: float = Field(30.0, gt=0, description="How long a call retries before it says LabBusy.")
    statement_seconds: float = Field(
        600.0, gt=0, description="How long one statement may run: a damaged or hostile file must not hang a process."
    )
    synchronous: Literal["OFF", "NORMAL", "FULL"] = Field(
        "FULL", description="Durability of a commit: FULL, NORMAL (a power cut may take the last ones) or OFF."
    )
    auto_cleanup_days: int | None = Field(
        None, gt=0, description="Contexts unused for longer count as removable by cleanup()."
    )
    topic_cleanup_days: dict[str, Annotated[int, Field(gt=0)] | None] = Field(
        default_factory=dict,
        description="auto_cleanup_days of single topics, null for never: {logs: 7, contracts: null}.",
    )
    access_log: bool = Field(True, description="Keep every search and read in the access log.")
    prices_path: str | None = Field(
        None, description="YAML table of your own prices (local models, negotiated rates); see use_prices."
    )
    access_log_days: int | None = Field(None, gt=0, description="Log entries older than this go at cleanup().")

    # Which source gave each setting; a setting that is not here has its default.
    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @field_validator("db_path", "prices_path", "cache_dir", "embedding_model", mode="before")
    @classmethod
    def _home_is_written_out(cls, value: Any) -> Any:
        return os.path.expanduser(value) if isinstance(value, str | os.PathLike) else value

    @field_validator("db_path", mode="wrap")
    @classmethod
    def _path_is_plain(cls, value: Any, check: Check) -> str:
        if isinstance(value, Address):
            return value
        text = str(check(value))
        return Address.of(text) if is_address(text) else str(Path(text))

    @field_validator("synchronous", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: Any) -> Any:
        return "OFF" if value is False else value  # YAML reads a bare OFF as False

    @field_validator("*", mode="wrap")
    @classmethod
    def _flags_are_no_numbers(cls, value: Any, check: Check) -> Any:
        result = check(value)
        if isinstance(value, bool) and not isinstance(result, bool | str):
            raise ValueError("give a number, not true or false")
        return result

    @model_validator(mode="after")
    def _values_fit_each_other(self) -> LabConfig:
        if self.chunk_overlap_tokens >= self.chunk_tokens:
            raise ValueError(
                f"chunk_overlap_tokens={self.chunk_overlap_tokens} must be below chunk_tokens={self.chunk_tokens}"
            )
        if (self.similarity_threshold or 0) > 1 and self.metric != "dot":
            raise ValueError(
                f"similarity_threshold={self.similarity_threshold} lets nothing pass: {self.metric} is at most 1"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources, the strongest first."""
        # `load` hands the lower sources over under private names, so that one class keeps the whole order. One dict,
        # because pydantic would join dicts of several sources key by key.
        values = dict(init_settings())
        preset, document = values.pop("_preset", {}), values.pop("_document", {})
        return (InitSettingsSource(settings_cls, {**preset, **document, **env_settings(), **values}),)

    @classmethod
    def load(
        cls,
        *,
        preset: str | None = None,
        config_path: str | os.PathLike[str] | None = None,
        settings: Any = None,
        **arguments: Any,
    ) -> LabConfig:
        """Collect the settings: `arguments` > environment > YAML > preset > default.

        Without `config_path` (or AUTOM8_CONFIG_PATH), `autom8.yaml` is looked for from the working directory upwards;
        its settings stand under `database:`. `settings` is another program's settings, with such a section in
        `database`, that take the file's place. `preset` may also come from AUTOM8_PRESET. Raises
        `ConfigurationError`, which names every unknown preset, key and value.

        >>> LabConfig.load(preset="testing").db_path
        ':memory:'
        """
        config, problems = cls.examine(preset=preset, config_path=config_path, settings=settings, **arguments)
        if config is None:
            raise ConfigurationError("; ".join(problems))
        return config

    @classmethod
    def examine(
        cls,
        *,
        preset: str | None = None,
        config_path: str | os.PathLike[str] | None = None,
        settings: Any = None,
        **arguments: Any,
    ) -> tuple[LabConfig | None, list[str]]:
        """Return what `load` returns, or None, and every problem that it raises, one by one."""
        given = {key: value for key, value in arguments.items() if value is not None}
        if preset is None:
            preset = os.environ.get(f"{PREFIX}PRESET") or None
        problems = []
        if preset is not None and preset not in PRESETS:
            problems = [f"unknown preset {preset!r}{did_you_mean(preset, PRESETS)}"]
        try:
            origin, document = _document(config_path, settings, set(cls.model_fields))
        except ConfigurationError as exc:
            return None, [*problems, str(exc)]
        for prefix, source in (("", given), (_in_file(origin), document)):
            for key in [key for key in source if key not in cls.model_fields]:
                problems.append(f"{prefix}unknown setting {key!r}{did_you_mean(key, cls.model_fields)}")
                del source[key]
        misspelt = {name: right for name, right in strays(cls.other_variables()).items() if right}
        problems += [f"unknown variable {name}; did you mean {right}?" for name, right in misspelt.items()]
        layers = [
            _Layer(f"preset {preset}", PRESETS.get(preset or "", {})),
            _Layer(origin, document),
            *(_Layer(f"environment {name}", {key: name}) for key, name in environment(cls.model_fields).items()),
            _Layer("argument", given),
        ]
        origins = {str(key): layer.origin for layer in layers for key in layer.values}
        try:
            config = cls(**given | {"_preset": layers[0].values, "_document": document})
        except SettingsError as exc:
            return None, [*problems, f"{exc}: {exc.__cause__}"]
        except ValidationError as exc:
            return None, problems + [_problem(error, origins) for error in exc.errors()]
        config._origins = origins
        return (None, problems) if problems else (config, [])

    @classmethod
    def other_variables(cls) -> list[str]:
        """Return the names, without AUTOM8_, of all variables that mean something to a lab."""
        return [*cls.model_fields, "preset", "config_path"]

    def origin(self, name: str) -> str:
        """Return where a setting's value comes from: argument, environment, file, preset or default.

        >>> LabConfig.load(preset="testing", agent="planner").origin("synchronous")
        'preset testing'
        """
        return self._origins.get(name, "default")


class _Layer(NamedTuple):
    origin: str
    values: Mapping[Any, Any]


def _document(config_path: str | os.PathLike[str] | None, settings: Any, known: set[str]) -> tuple[str, dict[Any, Any]]:
    if settings is not None:
        if config_path is not None:
            raise ConfigurationError("config_path and settings are both given: give one of the two")
        return f"settings {type(settings).__name__}", settings_of(settings)
    place = config_path or os.environ.get(f"{PREFIX}CONFIG_PATH")
    path = path_value(place, "config_path").expanduser() if place else find_upwards()
    return (f"file {path}", read_yaml(path, known)) if path else ("", {})


def _in_file(origin: str) -> str:
    kind, _, place = origin.partition(" ")
    return f"{place}: " if kind == "file" else ""


def _problem(error: Any, origins: Mapping[str, str]) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    if not error["loc"]:
        return message
    name = str(error["loc"][0])
    origin = origins.get(name, "")
    shown = origin.removeprefix("environment ") if origin.startswith("environment ") else f"{_in_file(origin)}{name}"
    return f"{shown}={shortened(error['input'])}: {message}"
