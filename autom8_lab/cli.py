"""The command line: the lab's words in a terminal. A command's module is loaded when the command is called."""

from __future__ import annotations

import errno
import importlib
import os
import warnings
from typing import Any

import click

from . import __version__
from .errors import InvalidValue, LabError, LabWarning, NotALab, NotFound, did_you_mean

# Each command's module and its short help, so that --help loads none of them.
COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "Set up": {
        "init": ("setting_up", "Make a lab ready to be used and look at its state."),
        "migrate": ("setting_up", "Bring a file's schema to a version, or show which it has."),
        "config": ("setting_up", "Show, check or begin a configuration."),
    },
    "Remember and find": {
        "store": ("remembering", "Store texts, files or rows as contexts."),
        "search": ("remembering", "Find contexts by words and by meaning."),
        "cleanup": ("remembering", "Show what retention removes, and remove it."),
    },
    "Account": {
        "import": ("importing", "Import the logs that other tools have written."),
        "usage": ("accounting", "Calls and tokens, by model or anything else."),
        "cost": ("accounting", "What calls cost, by model or anything else."),
        "latency": ("accounting", "How long calls took: percentiles with intervals."),
        "models": ("accounting", "How well models do: success, quality, cost, latency."),
        "decisions": ("accounting", "What was decided, from what, and how it went."),
    },
    "Look after the file": {
        "health": ("care", "The state of the file and its engines."),
        "check": ("care", "Look at everything in the lab, row by row."),
        "backup": ("care", "Copy the lab while others read and write it."),
        "repair": ("care", "Save what a damaged lab still holds into a new one."),
        "export": ("care", "Write everything in the lab as JSON lines."),
    },
    "Try": {
        "test": ("trying", "Try everything a lab does in this installation."),
        "bench": ("trying", "Measure how fast a lab works on this machine."),
        "demo": ("trying", "Build a lab from the Python language reference and search it."),
    },
}
ALL = {name: place for section in COMMANDS.values() for name, place in section.items()}


class OneLine(click.ClickException):
    """An error as one line on standard error, with exit code 1."""

    def __init__(self, error: LabError) -> None:
        super().__init__(" ".join(str(error).split()))


class WrongInput(OneLine):
    """What the user gave cannot be used."""

    exit_code = 2


def _in_one_line(error: click.UsageError) -> click.UsageError:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return error
    where = error.ctx.command_path if error.ctx else "autom8-lab"
    return click.UsageError(f"{error.format_message()} (see {where} --help)")


class Commands(click.Group):
    """The group of all commands, each imported on its first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the help."""
        return list(ALL)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in ALL:
            return None
        module = importlib.import_module(f".commands.{ALL[cmd_name][0]}", __package__)
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the first argument names, or say which is nearest."""
        if args and args[0] not in ALL and not args[0].startswith("-"):
            ctx.fail(f"no command {args[0]!r}{did_you_mean(args[0], ALL)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands in sections."""
        for title, commands in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl([(name, text) for name, (_, text) in commands.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the group's own options."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            raise _in_one_line(error) from error

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an error of the lab or of its use is one line, and so is a warning."""
        with warnings.catch_warnings():
            warnings.simplefilter("default", LabWarning)
            shown = warnings.showwarning
            warnings.showwarning = lambda message, category, *rest: (
                click.echo(f"Warning: {' '.join(str(message).split())}", err=True)
                if issubclass(category, LabWarning)
                else shown(message, category, *rest)
            )
            try:
                return super().invoke(ctx)
            except click.UsageError as error:
                raise _in_one_line(error) from error
            except OSError as error:
                if error.errno == errno.EPIPE:
                    raise  # whoever read the answer has seen enough: click ends quietly
                raise click.ClickException(" ".join(str(error).split())) from error
            except LabError as error:
                raise (WrongInput if isinstance(error, InvalidValue | NotFound | NotALab) else OneLine)(
                    error
                ) from error


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`autom8-lab COMMAND --help` tells a command's options, with an example.",
)
@click.version_option(__version__, prog_name="autom8-lab")
@click.pass_context
def main(ctx: click.Context) -> None:
    """One SQLite file remembers what an LLM-agent system knew, decided, spent and how well it went."""
    if os.environ.get("NO_COLOR"):
        ctx.color = False
