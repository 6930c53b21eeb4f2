"""The command line. Imports are inside the commands: ``medserl --help`` must answer at once."""

from medserl.cli.main import main

__all__ = ["main"]
