"""``bitinfer completion``: prints what makes a shell complete commands, options and values."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from typing import Any

_SHELLS = ("bash", "zsh", "fish")

_EPILOG = """to use it, put one line into the file that your shell reads at its start:
  bash  eval "$(bitinfer completion bash)"         in ~/.bashrc
  zsh   eval "$(bitinfer completion zsh)"          in ~/.zshrc, behind compinit
  fish  bitinfer completion fish | source          in ~/.config/fish/config.fish
"""


@dataclasses.dataclass(frozen=True)
class _Option:
    """An option: its spellings, what it is for, whether a value follows, and which ones can."""

    names: tuple[str, ...]
    help: str
    takes_value: bool
    values: tuple[str, ...]


def add_parser(subparsers: Any) -> None:
    """Register the command and its arguments."""
    parser = subparsers.add_parser(
        "completion",
        help="print what makes a shell complete bitinfer's arguments",
        description="Print a script for a shell, which then completes commands, options and their "
        "values, and file names elsewhere.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=_SHELLS, metavar="SHELL", help=", ".join(_SHELLS))


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    from bitinfer.cli._app import every_parser

    commands = {
        name: (help_text, tuple(_options(parser)))
        for name, (help_text, parser) in every_parser().items()
    }
    print({"bash": _bash, "zsh": _zsh, "fish": _fish}[args.shell](commands))
    return 0


_Commands = dict[str, tuple[str, tuple[_Option, ...]]]


def _options(parser: argparse.ArgumentParser) -> Iterator[_Option]:
    """Yield the options of a command; what it takes beside them are mostly files."""
    for action in parser._actions:
        if action.option_strings and action.help != argparse.SUPPRESS:
            yield _Option(
                tuple(action.option_strings),
                (action.help or "").partition(";")[0].replace("\n", " "),
                action.nargs != 0,
                tuple(str(choice) for choice in action.choices or ()),
            )
        elif action.choices and not action.option_strings:
            values = tuple(str(choice) for choice in action.choices)
            yield _Option((), action.help or "", True, values)


def _words(options: tuple[_Option, ...]) -> str:
    return " ".join(word for o in options for word in (o.names or o.values))


def _bash(commands: _Commands) -> str:
    lines = [
        "_bitinfer() {",
        '    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command="" i',
        "    for ((i = 1; i < COMP_CWORD; i++)); do",
        "        [[ ${COMP_WORDS[i]} == -* ]] || { command=${COMP_WORDS[i]}; break; }",
        "    done",
        "    COMPREPLY=()",
        "    case $command:$before in",
    ]
    for name, (_, options) in commands.items():
        for option in options:
            if option.takes_value and option.names:
                spelled = "|".join(f"{name}:{spelling}" for spelling in option.names)
                given = f'$(compgen -W "{" ".join(option.values)}" -- "$word")'
                lines.append(
                    f"    {spelled}) COMPREPLY=({given}); return ;;"
                    if option.values
                    else f'    {spelled}) COMPREPLY=($(compgen -f -- "$word")); return ;;'
                )
    lines += ["    esac", "    case $command in"]
    lines.append(
        f'    "") COMPREPLY=($(compgen -W "{" ".join(commands)} --help --version" -- "$word")) ;;'
    )
    for name, (_, options) in commands.items():
        lines.append(f'    {name}) COMPREPLY=($(compgen -W "{_words(options)}" -- "$word")) ;;')
    lines += [
        "    esac",
        '    [[ $word == -* || -z $command ]] || COMPREPLY+=($(compgen -f -- "$word"))',
        "}",
        "complete -o filenames -F _bitinfer bitinfer",
    ]
    return "\n".join(lines)


def _zsh(commands: _Commands) -> str:
    described = " ".join(_quoted(f"{n}:{help_text}") for n, (help_text, _) in commands.items())
    lines = [
        "_bitinfer() {",
        "    local -a commands",
        f"    commands=({described})",
        "    if (( CURRENT == 2 )); then",
        "        _describe command commands",
        "        return",
        "    fi",
        "    case ${words[2]} in",
    ]
    for name, (_, options) in commands.items():
        specs = [spec for option in options for spec in _zsh_specs(option)]
        lines.append(f"    {name}) _arguments {' '.join([*specs, _quoted('*:file:_files')])} ;;")
    return "\n".join([*lines, "    esac", "}", "compdef _bitinfer bitinfer"])


def _zsh_specs(option: _Option) -> Iterator[str]:
    escaped = option.help.replace("[", "(").replace("]", ")").replace(":", " -")
    values = f"({' '.join(option.values)})" if option.values else "_files"
    if not option.names:
        yield _quoted(f"1:value:{values}")
    for name in option.names:
        yield _quoted(f"*{name}[{escaped}]" + (f":value:{values}" if option.takes_value else ""))


def _fish(commands: _Commands) -> str:
    lines = [
        f"complete -c bitinfer -n __fish_use_subcommand -f -a {name} -d {_quoted(help_text)}"
        for name, (help_text, _) in commands.items()
    ]
    for name, (_, options) in commands.items():
        begin = f"complete -c bitinfer -n '__fish_seen_subcommand_from {name}'"
        for option in options:
            if not option.names:
                lines.append(f"{begin} -f -a {_quoted(' '.join(option.values))}")
                continue
            spelled = " ".join(
                f"-l {n[2:]}" if n.startswith("--") else f"-s {n[1:]}" for n in option.names
            )
            value = f" -x -a {_quoted(' '.join(option.values))}" if option.values else " -r"
            lines.append(
                f"{begin} {spelled}{value if option.takes_value else ''} -d {_quoted(option.help)}"
            )
    return "\n".join(lines)


def _quoted(text: str) -> str:
    """Return a word in single quotes, as all three shells read them."""
    return "'" + text.replace("\\", "/").replace("'", "'\\''") + "'"
