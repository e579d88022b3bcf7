"""Settings of a lab: argument > environment (AUTOM8_…) > YAML > preset > default."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from .errors import ConfigurationError, did_you_mean
from .records import Fusion, Metric, VectorEngine

CONFIG_FILE = "autom8.yaml"
PRESETS: dict[str, dict[str, Any]] = {
    "development": {"synchronous": "NORMAL"},
    "testing": {"db_path": ":memory:", "embedding_model": "hash", "synchronous": "OFF"},
    "production": {"synchronous": "FULL", "max_connections": 20},
}


class LabConfig(BaseSettings):
    """Every setting of a lab. Build it with `LabConfig.load`, which knows the sources and their order."""

    model_config = SettingsConfigDict(env_prefix="AUTOM8_", extra="forbid", frozen=True)

    db_path: str = Field("autom8.db", description="The SQLite file, or :memory:.")
    read_only: bool = Field(False, description="Open without writing anything, the access log included.")
    agent: str | None = Field(None, description="Who reads and searches; kept in the access log.")
    embedding_model: str = Field(
        "all-MiniLM-L6-v2",
        description="A sentence-transformers name, a local folder, or 'hash' (deterministic, for tests).",
    )
    embedding_dimensions: int | None = Field(None, gt=0, description="Refuse a model of another size.")
    embedding_device: str | None = Field(None, description="cpu, cuda, mps …; chosen by itself when empty.")
    chunk_tokens: int = Field(250, ge=8, description="Longest chunk, in tokens of the embedding model.")
    chunk_overlap_tokens: int = Field(50, ge=0, description="Tokens that neighbouring chunks share.")
    chunk_format: Literal["auto", "markdown", "plain"] = Field("auto", description="How long texts are split.")
    metric: Metric = Field("cosine", description="Similarity of vectors: cosine, l2 (1/(1+distance)) or dot.")
    vector_engine: VectorEngine = Field("auto", description="auto, sqlite-vec or exact.")
    fusion: Fusion = Field("scores", description="How hybrid search joins its rankings: scores or rrf.")
    similarity_threshold: float | None = Field(
        None, ge=-1, description="min_similarity of semantic and hybrid searches that give none."
    )
    cache_size: int = Field(10_000, gt=0, description="Pages that each connection caches.")
    max_connections: int = Field(8, gt=0, description="Pooled reading connections; the writer is one more.")
    busy_timeout_ms: int = Field(1_000, ge=0, description="How long SQLite itself waits for a lock, per try.")
    deadline_seconds: float = Field(30.0, gt=0, description="How long a call retries before it says LabBusy.")
    synchronous: Literal["OFF", "NORMAL", "FULL"] = Field("FULL", description="Durability of a commit.")
    auto_cleanup_days: int | None = Field(
        None, gt=0, description="Contexts unused for longer count as removable by cleanup()."
    )
    access_log: bool = Field(True, description="Keep every search and read in the access log.")
    prices_path: str | None = Field(
        None, description="YAML table of your own prices (local models, negotiated rates); see use_prices."
    )
    access_log_days: int | None = Field(None, gt=0, description="Log entries older than this go at cleanup().")

    @model_validator(mode="after")
    def _overlap_is_smaller_than_chunk(self) -> LabConfig:
        if self.chunk_overlap_tokens >= self.chunk_tokens:
            raise ValueError(
                f"chunk_overlap_tokens={self.chunk_overlap_tokens} must be below chunk_tokens={self.chunk_tokens}"
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
        # `load` hands the lower sources over under private names, so that one class keeps the whole order.
        values = dict(init_settings())
        preset, document = values.pop("_preset", {}), values.pop("_document", {})
        return (
            InitSettingsSource(settings_cls, values),
            env_settings,
            InitSettingsSource(settings_cls, document),
            InitSettingsSource(settings_cls, preset),
        )

    @classmethod
    def load(
        cls, *, preset: str | None = None, config_path: str | os.PathLike[str] | None = None, **arguments: Any
    ) -> LabConfig:
        """Collect the settings: `arguments` > environment > YAML > preset > default.

        Without `config_path`, `autom8.yaml` is looked for from the working directory upwards; its settings stand
        under `database:`. Raises `ConfigurationError` for an unknown preset, key or value.
        """
        if preset is not None and preset not in PRESETS:
            raise ConfigurationError(f"unknown preset {preset!r}{did_you_mean(preset, PRESETS)}")
        path = Path(config_path) if config_path is not None else _find_upwards(CONFIG_FILE)
        document = _read_yaml(path, set(cls.model_fields)) if path else {}
        given: dict[str, Any] = {key: value for key, value in arguments.items() if value is not None}
        for origin, keys in (("", given), (f"{path}: ", document)):
            for key in keys:
                if key not in cls.model_fields:
                    raise ConfigurationError(f"{origin}unknown setting {key!r}{did_you_mean(key, cls.model_fields)}")
        try:
            return cls(**given | {"_preset": PRESETS.get(preset or "", {}), "_document": document})
        except ValidationError as exc:
            raise ConfigurationError(
                "; ".join(_problem(error, given, document, path) for error in exc.errors())
            ) from exc


def _problem(error: Any, given: dict[str, Any], document: dict[str, Any], path: Path | None) -> str:
    if not error["loc"]:
        return str(error["msg"])
    name = str(error["loc"][0])
    in_file = name in document and name not in given and f"AUTOM8_{name.upper()}" not in os.environ
    return f"{f'{path}: ' if in_file else ''}{name}={error['input']!r}: {error['msg']}"


def _read_yaml(path: Path, known: set[str]) -> dict[str, Any]:
    """Return the settings under `database:`; a relative path there is meant from the file's folder."""
    if not path.is_file():
        raise ConfigurationError(f"no configuration file at {path}: give the path of a YAML file")
    import yaml

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"{path} is not valid YAML: {exc}") from exc
    if document is None:
        return {}
    if isinstance(document, dict) and (astray := [key for key in document if key in known]):
        raise ConfigurationError(f"{path}: put {', '.join(astray)} under 'database:'")
    section = document.get("database", {}) if isinstance(document, dict) else document
    if not isinstance(section, dict):
        raise ConfigurationError(f"{path}: 'database:' must hold keys and values, not {type(section).__name__}")
    for name in ("db_path", "prices_path"):
        place = section.get(name)
        if isinstance(place, str) and place != ":memory:" and "://" not in place:
            section = {**section, name: str(path.absolute().parent / place)}
    return section


def _find_upwards(name: str) -> Path | None:
    here = Path.cwd()
    return next((folder / name for folder in [here, *here.parents] if (folder / name).is_file()), None)
