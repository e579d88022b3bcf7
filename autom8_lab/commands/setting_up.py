"""Commands that set a lab up: init, migrate, config."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from .options import config_options, output_options
from .output import Output
from .rows import rows_of_file

if TYPE_CHECKING:
    from ..config import LabConfig


@click.command("init")
@click.option("--contents", metavar="FILE", help="First contexts: JSON, JSON lines or CSV with the fields of store.")
@config_options
@output_options
def init_command(configured: Callable[[], LabConfig], contents: str | None, output: Output) -> None:
    """Make a lab ready to be used and look at its state.

    Makes the folder and the file where they are missing, brings the schema up to date, tries the embedding model and
    looks at settings and health. Repeated, it changes nothing. Exit code 1 where something is not as it should be.

    Example: autom8-lab init --db autom8.db
    """
    from ..setup import setup_database

    report = setup_database(config=configured(), contents=rows_of_file(contents) if contents else None)
    output.record(report)
    if not report["ready"]:
        raise SystemExit(1)


@click.command("migrate")
@click.option("--to", metavar="VERSION", help="A number of migrations, or the last one's name; going back drops data.")
@click.option("--status", is_flag=True, help="Only show what is applied and what is pending.")
@config_options
@output_options
def migrate_command(configured: Callable[[], LabConfig], to: str | None, status: bool, output: Output) -> None:
    """Bring a file's schema to a version, or show which it has.

    Without --to to the newest. Every lab does that by itself when it is opened.

    Example: autom8-lab migrate --db autom8.db --status
    """
    from ..lab import get_migration_status, run_migrations

    path = configured().db_path
    version = int(to) if to and to.isdecimal() else to
    output.record(get_migration_status(path) if status else run_migrations(path, to=version))


@click.group("config")
def config_command() -> None:
    """Show, check or begin a configuration.

    Example: autom8-lab config show
    """


@config_command.command("show")
@config_options
@output_options
def show_command(configured: Callable[[], LabConfig], output: Output) -> None:
    """Show every setting with its value and where that comes from.

    Example: autom8-lab config show --preset production
    """
    from ..frames import frame
    from ..verbs.settings import CONFIG_COLUMNS, config_rows

    output.frame(
        frame(config_rows(configured()), CONFIG_COLUMNS), columns=["setting", "value", "origin", "description"]
    )


@config_command.command("check")
@click.option("--db", metavar="PATH", help="The lab's file.")
@click.option("--config", metavar="PATH", help="A YAML file of settings. [default: autom8.yaml, looked for upwards]")
@click.option("--preset", help="Settings for an environment: development, testing or production.")
@output_options
def check_command(db: str | None, config: str | None, preset: str | None, output: Output) -> None:
    """Say what is wrong with the configuration on this machine, and what is advised.

    Exit code 1 where something is wrong.

    Example: autom8-lab config check --config autom8.yaml
    """
    from ..setup import validate_config

    report = validate_config(config, preset=preset, db_path=db)
    output.record(report)
    if not report["valid"]:
        raise SystemExit(1)


@config_command.command("init")
@click.argument("path", default="autom8.yaml")
def begin_command(path: str) -> None:
    """Write a configuration file with every setting, its meaning and its default, commented out.

    Example: autom8-lab config init autom8.yaml
    """
    from ..config.template import write_template

    click.echo(f"{write_template(path)}: take away the # before what you change")
