"""Sweeps: every cell of a grid of settings computed by the engine, resumable, shown by the task's own tables.

``grid`` reads the file, ``cells`` says what there is to compute and computes one, ``sweeps`` computes what is missing,
``results`` shows what is there. Reads and writes below the folder of runs.
"""
