"""A real model through every command, on MEDEC's notes in the user's hands: ``medserl selftest --real``."""
