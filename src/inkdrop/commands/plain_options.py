"""The command line of verbs that have options `name=value` and no configuration."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from inkdrop.errors import ConfigurationError
from inkdrop.files.showing import harmless


def read_options(
    arguments: Sequence[str], verb: str, description: str, epilog: str, defaults: Mapping[str, str]
) -> dict[str, str]:
    """Returns the options of a command line, or prints its help.

    - `arguments`: the words after the verb.
    - `verb`: the verb.
    - `description`, `epilog`: what --help says before and after the usage.
    - `defaults`: the default of each option; those with an empty one are needed.

    Raises `ConfigurationError` for other options, and for one that is missing.
    """
    parser = argparse.ArgumentParser(
        prog=f"inkdrop {verb}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("options", nargs="*", metavar="option=value")
    takes = " ".join(f"{name}={value or '...'}" for name, value in defaults.items())
    options = dict(defaults)
    for each in parser.parse_args(arguments).options:
        name, equals, value = each.partition("=")
        if name not in defaults or not equals or not value:
            raise ConfigurationError(f"unknown option {harmless(each)}: {verb} takes {takes}")
        options[name] = value
    if missing := [name for name, value in options.items() if not value]:
        raise ConfigurationError(f"{missing[0]}=... is needed: {verb} takes {takes}")
    return options
