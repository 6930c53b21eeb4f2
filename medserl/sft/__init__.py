"""Warm start: verl's supervised trainer on demonstrations of the game."""
