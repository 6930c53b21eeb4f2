"""The adapters between the game and verl: configuration, agent loop, trainer, run directory.

Only ``agent_loop``, ``advantage``, ``trainer`` and ``launch`` import torch, Ray or verl; the others answer in
milliseconds, so that a mistake in a configuration is told before anything starts.
"""
