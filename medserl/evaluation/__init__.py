"""Measuring an assessor on labelled notes.

``metrics``, ``official``, ``calibration``, ``votes`` and ``paired`` import nothing heavy (no torch, no vLLM, no numpy;
scipy and scikit-learn where they are asked for a value); ``groups`` says which texts belong together; ``bootstrap``
needs numpy; ``engine`` runs vLLM; ``results`` writes what ``medserl evaluate`` reports.
"""
