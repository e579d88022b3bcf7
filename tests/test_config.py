"""Settings: argument > environment > YAML > preset > default, and clear words for everything else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

import autom8_lab as al
from autom8_lab.config import PRESETS, LabConfig
from autom8_lab.config.template import template, write_template


@pytest.fixture(autouse=True)
def no_cache_of_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor the variable of the session's cache: here every variable is a setting."""
    monkeypatch.delenv("AUTOM8_CACHE_DIR")


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


@pytest.mark.parametrize("text", ["", "# only a comment\n", "routing: {}\n", "database: {}\n", "database:\n"])
def test_a_file_without_settings_changes_nothing(yaml: Path, text: str) -> None:
    yaml.write_text(text, encoding="utf-8")
    assert LabConfig.load() == LabConfig()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("database: [1, 2", "is not valid YAML"),
        ("\t- x: [", "is not valid YAML"),
        ("database: 5", "'database:' must hold keys and values, not int"),
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
    with pytest.raises(al.ConfigurationError, match=r"^AUTOM8_CACHE_SIZE='many'"):
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
    with pytest.raises(al.ConfigurationError, match="AUTOM8_CACHE_SIZE='lots'"):
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


def test_the_home_folder_is_written_out_wherever_a_path_stands(
    tmp_path: Path, yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert LabConfig.load(db_path="~/x.db").db_path == str(tmp_path / "x.db")
    yaml.write_text("database: {db_path: ~/y.db, embedding_model: ~/model}", encoding="utf-8")
    config = LabConfig.load(config_path="~/autom8.yaml")
    assert (config.db_path, config.embedding_model) == (str(tmp_path / "y.db"), str(tmp_path / "model"))
    monkeypatch.setenv("AUTOM8_DB_PATH", "~/z.db")
    assert LabConfig.load().db_path == str(tmp_path / "z.db")
    with al.open("~/lab.db", embedding_model="hash-16") as lab:
        lab.store_context("A text.")
    assert (tmp_path / "lab.db").exists()
    assert al.get_migration_status("~/lab.db")["pending"] == []
    assert al.run_migrations("~/lab.db")["pending"] == []


def test_each_value_knows_where_it_came_from(yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOM8_CACHE_SIZE", "7")
    monkeypatch.setenv("autom8_chunk_tokens", "90")
    config = LabConfig.load(preset="production", agent="planner", deadline_seconds=None)
    assert config.origin("agent") == "argument"
    assert config.origin("cache_size") == "environment AUTOM8_CACHE_SIZE"
    assert config.origin("chunk_tokens") == "environment autom8_chunk_tokens"
    assert config.origin("synchronous") == f"file {yaml}"
    assert config.origin("max_connections") == "preset production"
    assert config.origin("deadline_seconds") == "default"


def test_the_lab_tells_its_settings_and_their_origins(lab: al.Lab) -> None:
    settings = lab.config_df().set_index("setting")
    assert settings.index.tolist() == list(LabConfig.model_fields)
    assert settings.loc["embedding_model", ["value", "origin", "default"]].tolist() == [
        "hash-64",
        "argument",
        "all-MiniLM-L6-v2",
    ]
    assert settings.loc["cache_size", ["value", "origin"]].tolist() == [10_000, "default"]


def test_a_variable_names_the_preset_and_the_file(yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOM8_PRESET", "production")
    assert LabConfig.load().max_connections == 20
    assert LabConfig.load(preset="development").max_connections == 8
    other = yaml.with_name("other.yaml")
    other.write_text("database: {cache_size: 77}", encoding="utf-8")
    monkeypatch.setenv("AUTOM8_CONFIG_PATH", str(other))
    assert LabConfig.load().cache_size == 77
    assert LabConfig.load(config_path=yaml).cache_size == 2_000
    monkeypatch.setenv("AUTOM8_PRESET", "productoin")
    with pytest.raises(al.ConfigurationError, match="unknown preset 'productoin'; did you mean 'production'"):
        LabConfig.load()


@pytest.mark.parametrize(
    ("variable", "right"),
    [
        ("AUTOM8_CASH_SIZE", "AUTOM8_CACHE_SIZE"),
        ("AUTOM8_DBPATH", "AUTOM8_DB_PATH"),
        ("autom8_embeding_model", "AUTOM8_EMBEDDING_MODEL"),
        ("AUTOM8_DATABASE_CACHE_SIZE", "AUTOM8_CACHE_SIZE"),
        ("AUTOM8_PRESETS", "AUTOM8_PRESET"),
    ],
)
def test_a_misspelt_variable_is_refused(variable: str, right: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "5")
    with pytest.raises(al.ConfigurationError, match=rf"unknown variable {variable}; did you mean {right}\?"):
        LabConfig.load()


@pytest.mark.parametrize("variable", ["AUTOM8_HOME", "AUTOM8_API_KEY", "AUTOM8_LOG_LEVEL", "AUTOM8_AGENT_HOME"])
def test_another_programs_variable_is_left_alone(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "s3cret")
    assert LabConfig.load() == LabConfig()
    assert any(variable in line for line in al.validate_config()["advice"])
    assert "s3cret" not in str(al.validate_config())


def test_an_empty_variable_gives_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LabConfig.other_variables():
        monkeypatch.setenv(f"AUTOM8_{name.upper()}", "")
    assert LabConfig.load() == LabConfig()


def test_every_problem_is_named_at_once(yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    yaml.write_text("database: {cash_size: 5, chunk_tokens: many}", encoding="utf-8")
    monkeypatch.setenv("AUTOM8_MAX_CONECTIONS", "3")
    monkeypatch.setenv("AUTOM8_READ_ONLY", "perhaps")
    config, problems = LabConfig.examine(preset="productoin", agnet="x", metric="manhattan")
    assert config is None
    assert problems[:4] == [
        "unknown preset 'productoin'; did you mean 'production'?",
        "unknown setting 'agnet'; did you mean 'agent'?",
        f"{yaml}: unknown setting 'cash_size'; did you mean 'cache_size'?",
        "unknown variable AUTOM8_MAX_CONECTIONS; did you mean AUTOM8_MAX_CONNECTIONS?",
    ]
    rest = "\n".join(problems[4:])
    assert f"{yaml}: chunk_tokens='many': " in rest
    assert "AUTOM8_READ_ONLY='perhaps': " in rest
    assert "\nmetric='manhattan': " in f"\n{rest}"
    assert len(problems) == 7


def test_a_bare_off_in_yaml_is_a_word(yaml: Path) -> None:
    yaml.write_text("database: {synchronous: OFF}", encoding="utf-8")
    assert LabConfig.load().synchronous == "OFF"


def test_true_is_no_number(yaml: Path) -> None:
    yaml.write_text("database: {max_connections: true}", encoding="utf-8")
    with pytest.raises(al.ConfigurationError, match=r"max_connections=True: give a number, not true or false"):
        LabConfig.load()
    yaml.write_text("database: {read_only: yes}", encoding="utf-8")
    assert LabConfig.load().read_only is True


def test_a_threshold_that_lets_nothing_pass_is_refused() -> None:
    with pytest.raises(al.ConfigurationError, match=r"similarity_threshold=7.* lets nothing pass: cosine is at most 1"):
        LabConfig.load(similarity_threshold=7)
    assert LabConfig.load(similarity_threshold=7, metric="dot").similarity_threshold == 7


def test_another_programs_settings_take_the_files_place(yaml: Path) -> None:
    class Section(BaseModel):
        db_path: str = "not given, so not taken"
        cache_size: int = 5

    @dataclass
    class Whole:
        database: Any

    for section in (
        Section(cache_size=42),
        {"cache_size": 42},
        SimpleNamespace(model_dump=lambda **_: {"cache_size": 42}),
    ):
        config = LabConfig.load(settings=Whole(section))
        assert (config.cache_size, config.db_path, config.synchronous) == (42, "autom8.db", "FULL")
        assert config.origin("cache_size") == "settings Whole"
    assert LabConfig.load(settings={"database": {"cache_size": 43}, "routing": 1}).cache_size == 43
    assert LabConfig.load(settings={"routing": 1}).cache_size == 10_000
    with pytest.raises(al.ConfigurationError, match="unknown setting 'cash_size'"):
        LabConfig.load(settings={"database": {"cash_size": 43}})
    with pytest.raises(al.ConfigurationError, match="settings=int has no 'database'"):
        LabConfig.load(settings=5)
    with pytest.raises(al.ConfigurationError, match="config_path and settings are both given"):
        LabConfig.load(settings={}, config_path=yaml)


def test_the_specifications_file_is_understood(yaml: Path) -> None:
    yaml.write_text(
        """\
        database:
          db_path: "./autom8.db"
          cache_size: 10000
          embedding_model: "all-MiniLM-L6-v2"
          embedding_dimensions: 384
          similarity_threshold: 0.5
          max_connections: 20
          auto_cleanup_days: 30
        """,
        encoding="utf-8",
    )
    config = LabConfig.load()
    assert config.db_path == str(yaml.parent / "autom8.db")
    assert (config.embedding_dimensions, config.similarity_threshold, config.auto_cleanup_days) == (384, 0.5, 30)


# The template


def test_the_template_as_it_is_changes_nothing(tmp_path: Path) -> None:
    path = write_template(tmp_path / "autom8.yaml")
    assert LabConfig.load(config_path=path) == LabConfig()


def test_the_template_with_every_comment_taken_away_says_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "autom8.yaml"
    path.write_text(re.sub(r"^  #(?=\w)", "  ", template(), flags=re.MULTILINE), encoding="utf-8")
    config = LabConfig.load(config_path=path)
    assert {name for name in LabConfig.model_fields if config.origin(name) != "default"} == set(LabConfig.model_fields)
    assert config.model_dump(exclude={"db_path"}) == LabConfig().model_dump(exclude={"db_path"})
    assert config.db_path == str(tmp_path / "autom8.db")


def test_the_template_overwrites_nothing(tmp_path: Path) -> None:
    path = tmp_path / "autom8.yaml"
    path.write_text("mine", encoding="utf-8")
    with pytest.raises(al.ConfigurationError, match="exists already: edit it, or give another path"):
        write_template(path)
    assert path.read_text(encoding="utf-8") == "mine"
    with pytest.raises(al.ConfigurationError, match=r"nowhere.* cannot be written"):
        write_template(tmp_path / "nowhere" / "autom8.yaml")
