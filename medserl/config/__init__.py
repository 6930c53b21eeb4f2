"""Settings, and how verl's defaults, a file of ``configs/`` and overrides become a configuration. No torch, no verl."""
