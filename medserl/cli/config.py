"""``medserl config``."""

from __future__ import annotations

import argparse
from typing import Any

from medserl.cli.arguments import chosen_config
from medserl.errors import EXIT_OK, ConfigError

_NONE = object()


def show_config(options: argparse.Namespace, overrides: list[str]) -> int:
    """Print a resolved configuration as YAML, the names of the shipped ones, or what its keys mean."""
    from omegaconf import OmegaConf

    from medserl.config.load import available_configs, is_sft_config, load_config, load_sft_config

    if options.list:
        print("\n".join(available_configs()))
        return EXIT_OK
    name = chosen_config(options, overrides)
    config = (load_sft_config if is_sft_config(name) else load_config)(name, overrides, starts=False)
    if options.explain or options.changed:
        from medserl.config.explain import changed, explain_key, shown

        if options.explain:
            print(explain_key(config, options.explain, name))
        for entry in changed(config, name) if options.changed else ():
            why = f"  # {entry.reason}" if entry.reason else ""
            print(f"{entry.key}: {shown(OmegaConf.select(config, entry.key))}  (default {shown(entry.default)}){why}")
        return EXIT_OK
    node = _part(config, options.section) if options.section else config
    # A value that is a part of its own is shown as YAML has it: null, true.
    printed = OmegaConf.to_yaml(node if OmegaConf.is_config(node) else OmegaConf.create([node]))
    print(printed.rstrip() if OmegaConf.is_config(node) else printed.removeprefix("- ").rstrip())
    return EXIT_OK


def _part(config: Any, key: str) -> Any:
    """What stands under a key, null included.

    Raises:
        ConfigError: there is no such key.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    try:
        found = OmegaConf.select(config, key, default=_NONE, throw_on_missing=True)
    except MissingMandatoryValue:
        return "???"
    except (OmegaConfBaseException, ValueError, LookupError, TypeError):
        found = _NONE
    if found is _NONE:
        raise ConfigError(f"--section {key}: the configuration has no such key")
    return found
