"""From raw files to a judged checkpoint in one command: `medserl pipeline`."""
