"""``medserl config``."""

from __future__ import annotations

import argparse

from medserl.cli.arguments import chosen_config
from medserl.errors import EXIT_OK, ConfigError


def show_config(options: argparse.Namespace, overrides: list[str]) -> int:
    """Print a resolved configuration as YAML, the names of the shipped ones, or what its keys mean."""
    from omegaconf import OmegaConf

    from medserl.config.load import available_configs, is_sft_config, load_config, load_sft_config

    if options.list:
        print("\n".join(available_configs()))
        return EXIT_OK
    name = chosen_config(options, overrides)
    config = (load_sft_config if is_sft_config(name) else load_config)(name, overrides)
    if options.explain or options.changed:
        from medserl.config.explain import changed, explain_key, shown

        if options.explain:
            print(explain_key(config, options.explain, name))
        for entry in changed(config, name) if options.changed else ():
            why = f"  # {entry.reason}" if entry.reason else ""
            print(f"{entry.key}: {shown(OmegaConf.select(config, entry.key))}  (default {shown(entry.default)}){why}")
        return EXIT_OK
    node = OmegaConf.select(config, options.section) if options.section else config
    if node is None:
        raise ConfigError(f"--section {options.section}: the configuration has no such key")
    print(OmegaConf.to_yaml(node).rstrip() if OmegaConf.is_config(node) else node)
    return EXIT_OK
