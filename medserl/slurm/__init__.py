"""Slurm: the arithmetic of a job before it is submitted, and what the launchers of slurm/ run on the nodes.

Imports neither torch nor Ray until a step needs them. docs/cluster.md has the whole.
"""
