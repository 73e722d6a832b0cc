"""The frame around the commands: finds one, parses its arguments, turns errors into exit codes."""

from __future__ import annotations

import argparse
import re
import sys
import warnings
from importlib import import_module
from typing import Any, NoReturn

from bitinfer import errors, names
from bitinfer._version import __version__
from bitinfer.cli._terminal import report

COMMANDS = (
    "run",
    "convert",
    "verify",
    "inspect",
    "eval",
    "train",
    "zoo",
    "bench",
    "profile",
    "info",
    "report",
    "serve",
    "batch",
    "export-c",
    "doctor",
    "completion",
)

EPILOG = """exit codes:
  0    done
  1    internal error, the output cannot be written, or 'doctor' has found a fault
  2    wrong usage, or a backend or an extra that is not available here
  3    the model or checkpoint is rejected, cannot become what is asked for, or is not its source
  4    the input cannot be read (of several inputs: none of them)
  5    some of several inputs cannot be read; the others are done
  130  interrupted
  141  whoever read the output has stopped, as 'head' does

'bitinfer COMMAND --help' says more; every command takes --traceback, which shows where an error
comes from.
"""

_EXIT_CODES: tuple[tuple[type[Exception], int], ...] = (
    (errors.BackendError, 2),
    (errors.MissingExtraError, 2),
    (errors.UsageError, 2),
    (errors.ModelFileError, 3),
    (errors.CheckpointError, 3),
    (errors.ConversionError, 3),
    (errors.GraphError, 3),
    (errors.ShapeError, 3),
    (errors.InputError, 4),
    (errors.OutputError, 1),
)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments on one line, without the usage before it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)
        # Also lists of them, as in --mean -0.5,0.5,0.5: no option begins with a digit.
        self._negative_number_matcher = re.compile(r"-\.?\d")

    def _print_message(self, message: str, file: Any = None) -> None:
        # argparse's own passes over what it could not write: a full disk would be exit code 0.
        (file or sys.stderr).write(message)

    def error(self, message: str) -> NoReturn:
        _, _, command = self.prog.partition(" ")
        where = f"{command}: " if command else ""
        meant = self._meant(message)
        report(f"{where}{message}; {meant}see '{self.prog} --help'")
        self.exit(2)

    def _meant(self, message: str) -> str:
        """Return the question after the option that was probably meant, if one is unknown."""
        known = [name for action in self._actions for name in action.option_strings]
        _, _, rest = message.partition("unrecognized arguments: ")
        wrong = next((word for word in rest.split() if word.startswith("--")), "")
        close = names.suggest(wrong.partition("=")[0], known) if wrong else ""
        return f"{close} " if close.startswith("did you mean") else ""


def run_command(argv: list[str]) -> int:
    """Run the command that ``argv`` names and return its exit code.

    Raises only KeyboardInterrupt, and BrokenPipeError when nobody reads the output any more.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a label must not end the run
    try:
        with warnings.catch_warnings():
            # What Pillow thinks of a file's metadata does not help who wants to know what is in it.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            return _parse_and_run(argv)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    except BrokenPipeError:
        raise
    except Exception as error:
        if "--traceback" in argv:
            import traceback

            traceback.print_exc()
        report(_describe(error))
        return next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), 1)


def _parse_and_run(argv: list[str]) -> int:
    position = next((i for i, a in enumerate(argv) if a == "-" or a[:1] != "-"), len(argv))
    before, after = argv[:position], argv[position + 1 :]
    parser = _Parser(
        prog="bitinfer",
        description="Run binary neural networks on CPUs.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"bitinfer {__version__}")
    _add_traceback(parser)
    commands = parser.add_subparsers(metavar="COMMAND", title="commands", parser_class=_Parser)
    if position == len(argv):
        if "-h" in argv or "--help" in argv:
            for name in COMMANDS:
                _module(name).add_parser(commands)
        parser.parse_args(before)
        parser.error(f"a command is missing: {', '.join(COMMANDS)}")
    name = argv[position]
    if name == "help":
        return _parse_and_run([*before, *after[:1], "--help"])
    if name not in COMMANDS:
        parser.error(str(names.unknown("command", name, COMMANDS)))
    module = _module(name)  # the only one: another's fault or slowness is not this one's
    module.add_parser(commands)
    parser.parse_args(before)
    own = commands.choices[name]
    _add_traceback(own)
    # Options may stand between inputs; names that begin with a dash may follow a '--'.
    args = own.parse_args(after) if "--" in after else own.parse_intermixed_args(after)
    code: int = module.run(args)
    return code


def every_parser() -> dict[str, tuple[str, argparse.ArgumentParser]]:
    """Return what every command is for, and its parser."""
    commands = _Parser(prog="bitinfer").add_subparsers(parser_class=_Parser)
    for name in COMMANDS:
        _module(name).add_parser(commands)
        _add_traceback(commands.choices[name])
    purposes = {choice.dest: choice.help or "" for choice in commands._choices_actions}
    return {name: (purposes[name], commands.choices[name]) for name in COMMANDS}


def _module(name: str) -> Any:
    return import_module(f"bitinfer.cli.{name.replace('-', '_')}")


def _describe(error: Exception) -> str:
    if isinstance(error, errors.BitInferError):
        return str(error)
    if isinstance(error, MemoryError) or _lacks_memory(error):
        return "not enough memory"
    if isinstance(error, OSError) and error.strerror:
        where = error.filename or "cannot write the output"
        return f"{where}: {error.strerror}"
    return (
        f"internal error: {type(error).__name__}: {error}; "
        "please report it with what --traceback shows"
    )


def _lacks_memory(error: BaseException | None) -> bool:
    """Tell whether it is a library that could not be loaded, for want of memory."""
    words = ("failed to map segment", "cannot allocate memory")
    while isinstance(error, ImportError):
        if any(text in str(error).lower() for text in words):
            return True
        error = error.__cause__ or error.__context__
    return False


def _add_traceback(parser: argparse.ArgumentParser) -> None:
    # Who reads it is run_command, which has to know even where parsing fails.
    parser.add_argument(
        "--traceback", action="store_true", help="show where in the code an error comes from"
    )
