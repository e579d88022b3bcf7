"""Settings: argument > environment > YAML > preset > default, and clear words for everything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import autom8_lab as al
from autom8_lab.config import PRESETS, LabConfig


@pytest.fixture
def yaml(tmp_path: Path) -> Path:
    """A configuration file in the working directory."""
    path = tmp_path / "autom8.yaml"
    path.write_text("database:\n  cache_size: 2000\n  synchronous: NORMAL\n", encoding="utf-8")
    return path


def test_every_setting_has_a_default_and_a_description() -> None:
    config = LabConfig.load()
    assert (config.db_path, config.embedding_model) == ("autom8.db", "all-MiniLM-L6-v2")
    assert (config.vector_engine, config.fusion, config.metric) == ("auto", "scores", "cosine")
    assert (config.read_only, config.access_log, config.synchronous) == (False, True, "FULL")
    for name, field in LabConfig.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


def test_each_source_yields_to_the_one_above(yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def synchronous(**arguments: Any) -> str:
        return LabConfig.load(preset="testing", **arguments).synchronous

    assert LabConfig.load().cache_size == 2_000
    assert synchronous() == "NORMAL"  # YAML over the preset's OFF
    monkeypatch.setenv("AUTOM8_SYNCHRONOUS", "FULL")
    assert synchronous() == "FULL"
    assert synchronous(synchronous="OFF") == "OFF"
    yaml.unlink()
    monkeypatch.delenv("AUTOM8_SYNCHRONOUS")
    assert synchronous() == "OFF"
    assert LabConfig.load().synchronous == "FULL"


def test_sources_are_joined_setting_by_setting(yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOM8_CHUNK_TOKENS", "100")
    config = LabConfig.load(preset="production", max_connections=3)
    assert (config.max_connections, config.chunk_tokens, config.cache_size) == (3, 100, 2_000)
    assert (config.synchronous, config.embedding_model) == ("NORMAL", "all-MiniLM-L6-v2")


def test_an_argument_of_none_is_no_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOM8_AGENT", "planner")
    assert LabConfig.load(agent=None).agent == "planner"


def test_the_file_is_found_from_any_folder_below_it(yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = yaml.parent / "notebooks" / "deep"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert LabConfig.load().cache_size == 2_000
    (below.parent / "autom8.yaml").write_text("database: {cache_size: 3000}", encoding="utf-8")
    assert LabConfig.load().cache_size == 3_000


def test_the_database_of_a_file_is_the_same_from_any_folder_below_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A notebook in a folder of its own has to open the lab that the project's file means.
    (tmp_path / "autom8.yaml").write_text("database: {db_path: ./lab.db}", encoding="utf-8")
    above = Path(LabConfig.load().db_path).absolute()
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert Path(LabConfig.load().db_path).resolve() == above.resolve()


def test_a_file_can_be_named(tmp_path: Path, yaml: Path) -> None:
    other = tmp_path / "database.yaml"
    other.write_text("database: {cache_size: 4000, max_connections: 20, auto_cleanup_days: 30}", encoding="utf-8")
    config = LabConfig.load(config_path=other)
    assert (config.cache_size, config.max_connections, config.auto_cleanup_days) == (4_000, 20, 30)
    assert LabConfig.load(config_path=str(other)).cache_size == 4_000


def test_a_file_of_all_programs_settings_may_have_other_sections(yaml: Path) -> None:
    yaml.write_text("routing: {default: small}\ndatabase: {cache_size: 5}\n", encoding="utf-8")
    assert LabConfig.load().cache_size == 5


@pytest.mark.parametrize("text", ["", "# only a comment\n", "routing: {}\n", "database: {}\n"])
def test_a_file_without_settings_changes_nothing(yaml: Path, text: str) -> None:
    yaml.write_text(text, encoding="utf-8")
    assert LabConfig.load() == LabConfig()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("database: [1, 2", "is not valid YAML"),
        ("\t- x: [", "is not valid YAML"),
        ("database: 5", "'database:' must hold keys and values, not int"),
        ("database:\n", "'database:' must hold keys and values"),
        ("- a\n- b\n", "must hold keys and values, not list"),
        ("just text", "must hold keys and values, not str"),
        ("5", "must hold keys and values, not int"),
        ("database: {cash_size: 5}", "unknown setting 'cash_size'; did you mean 'cache_size'"),
        ("database: {1: 2}", "unknown setting 1"),
        ("database: {cache_size: lots}", "cache_size='lots'"),
        ("database: {cache_size: 0}", "cache_size=0: .*greater than 0"),
        ("database: {db_path: null}", "db_path=None"),
        ("db_path: lab.db", "db_path.*database:"),
        ("database: !!python/object/apply:os.getcwd []", "is not valid YAML"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(yaml: Path, text: str, message: str) -> None:
    yaml.write_text(text, encoding="utf-8")
    with pytest.raises(al.ConfigurationError, match=message):
        LabConfig.load()


def test_a_file_that_is_not_text_says_so(yaml: Path) -> None:
    yaml.write_bytes(b"\xff\xfe\x00database")
    with pytest.raises(al.ConfigurationError, match=r"autom8\.yaml is not valid YAML"):
        LabConfig.load()


def test_a_problem_in_a_file_names_the_file(yaml: Path) -> None:
    for text in ("database: {cash_size: 5}", "database: {cache_size: lots}"):
        yaml.write_text(text, encoding="utf-8")
        with pytest.raises(al.ConfigurationError, match=r"autom8\.yaml"):
            LabConfig.load()


def test_a_problem_elsewhere_does_not_blame_the_file(yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(al.ConfigurationError, match=r"^cache_size='lots'"):
        LabConfig.load(cache_size="lots")
    monkeypatch.setenv("AUTOM8_CACHE_SIZE", "many")
    with pytest.raises(al.ConfigurationError, match=r"^cache_size='many'"):
        LabConfig.load()


def test_a_missing_file_that_was_named_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(al.ConfigurationError, match=r"no configuration file at .*missing\.yaml: give the path"):
        LabConfig.load(config_path=tmp_path / "missing.yaml")
    with pytest.raises(al.ConfigurationError, match="no configuration file at"):
        LabConfig.load(config_path=tmp_path)


def test_an_unknown_argument_gets_a_suggestion() -> None:
    with pytest.raises(al.ConfigurationError, match="unknown setting 'embeding_model'; did you mean 'embedding_model'"):
        al.open(":memory:", embeding_model="hash")
    with pytest.raises(al.ConfigurationError, match="unknown setting 'zzz'; known names: access_log, "):
        al.open(":memory:", zzz=1)


def test_an_unknown_preset_gets_a_suggestion() -> None:
    with pytest.raises(al.ConfigurationError, match="unknown preset 'prodution'; did you mean 'production'"):
        al.open(preset="prodution")
    with pytest.raises(
        al.ConfigurationError, match="unknown preset 'xyz'; known names: development, production, testing"
    ):
        al.open(preset="xyz")
    with pytest.raises(al.ConfigurationError, match="unknown preset ''"):
        al.open(preset="")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cache_size", "lots"),
        ("cache_size", 0),
        ("cache_size", 1.5),
        ("max_connections", -1),
        ("busy_timeout_ms", -1),
        ("deadline_seconds", 0),
        ("deadline_seconds", float("nan")),
        ("chunk_tokens", 7),
        ("chunk_overlap_tokens", -1),
        ("chunk_format", "html"),
        ("embedding_dimensions", 0),
        ("metric", "manhattan"),
        ("vector_engine", "faiss"),
        ("fusion", "magic"),
        ("similarity_threshold", "high"),
        ("similarity_threshold", float("nan")),
        ("similarity_threshold", -2),
        ("synchronous", "SOMETIMES"),
        ("auto_cleanup_days", 0),
        ("access_log", "perhaps"),
        ("access_log_days", -3),
        ("db_path", 5),
        ("embedding_model", b"\xff"),
    ],
)
def test_a_bad_value_is_named_with_its_setting(name: str, value: Any) -> None:
    with pytest.raises(al.ConfigurationError, match=f"{name}=") as caught:
        LabConfig.load(**{name: value})
    assert repr(value) in str(caught.value)


def test_bad_values_are_all_named_at_once() -> None:
    with pytest.raises(al.ConfigurationError, match=r"(?s)cache_size='x': .*; max_connections='y': "):
        LabConfig.load(cache_size="x", max_connections="y")


def test_an_overlap_must_be_smaller_than_its_chunk() -> None:
    with pytest.raises(al.ConfigurationError, match=r"chunk_overlap_tokens=50 .* chunk_tokens=20"):
        LabConfig.load(chunk_tokens=20)


def test_a_bad_value_in_the_environment_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOM8_CACHE_SIZE", "lots")
    with pytest.raises(al.ConfigurationError, match="cache_size='lots'"):
        LabConfig.load()
    assert LabConfig.load(cache_size=5).cache_size == 5


def test_every_preset_is_made_of_real_settings() -> None:
    for name, values in PRESETS.items():
        config = LabConfig.load(preset=name)
        assert values == {key: getattr(config, key) for key in values}


def test_settings_cannot_be_changed_behind_the_labs_back() -> None:
    with pytest.raises(ValueError, match="frozen"):
        LabConfig.load().cache_size = 5


def test_the_testing_preset_works_in_memory_with_the_hash_encoder(tmp_path: Path) -> None:
    with al.open(preset="testing") as lab:
        lab.store_context("Something to find.", context_id="a")
        assert [hit.context.id for hit in lab.search("find something", method="semantic")] == ["a"]
        assert lab.stats()["path"] == ":memory:"
        assert lab.stats()["embedding_model"] == "hash-384@1"
    assert list(tmp_path.iterdir()) == []


def test_the_path_of_the_lab_follows_the_same_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOM8_EMBEDDING_MODEL", "hash-16")
    with al.open() as lab:
        assert lab.config.db_path == "autom8.db"
        assert (tmp_path / "autom8.db").exists()
    (tmp_path / "autom8.yaml").write_text("database: {db_path: from_yaml.db}", encoding="utf-8")
    with al.open() as lab:
        assert Path(lab.config.db_path).name == "from_yaml.db"
    monkeypatch.setenv("AUTOM8_DB_PATH", "from_environment.db")
    with al.open() as lab:
        assert lab.config.db_path == "from_environment.db"
    with al.open("from_argument.db") as lab:
        assert lab.config.db_path == "from_argument.db"
    with al.open(tmp_path / "from_path.db", preset="testing") as lab:
        assert lab.config.db_path == str(tmp_path / "from_path.db")


def test_the_yaml_that_the_lab_was_opened_with_counts(tmp_path: Path) -> None:
    path = tmp_path / "project.yaml"
    path.write_text("database: {db_path: ':memory:', embedding_model: hash-32, agent: planner}", encoding="utf-8")
    with al.open(config_path=path) as lab:
        assert (lab.config.agent, lab.config.embedding_model) == ("planner", "hash-32")
