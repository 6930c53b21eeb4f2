"""``python -m medserl``."""

import sys

from medserl.cli import main

if __name__ == "__main__":
    sys.exit(main())
