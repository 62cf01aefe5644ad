"""Sweeps: every cell of a grid of settings computed by worker processes, resumable, shown by the task's own tables.

``grid`` reads the file, ``cells`` names what there is to compute, ``crews`` and ``cluster`` compute it, ``driver``
hands it out and keeps the rows, ``results`` shows what is there. Reads and writes below the folder of runs.
"""
