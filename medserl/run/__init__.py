"""A run's life on a machine: directory, log, checkpoints, signals, deadline, processes. No torch, no verl."""
