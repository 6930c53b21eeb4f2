"""Measuring an assessor on labelled notes.

``metrics``, ``official``, ``calibration``, ``votes`` and ``paired`` are pure (no torch, no vLLM, no numpy) and
serve validation during training too; ``bootstrap`` needs numpy; ``engine`` runs vLLM; ``results`` writes what
``medserl evaluate`` reports.
"""
