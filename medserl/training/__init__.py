"""The hooks into verl: trainer, agent loop, advantages, validation, export, and the Python API over them.

``trainer`` is the loop and ``agent_loop`` one game; only these, ``advantage``, ``validate`` and ``verl_plugin`` import
torch, Ray or verl.
"""
