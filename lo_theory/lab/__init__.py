"""Experiments as data: strict configurations, run folders, tasks that fill them, tables and figures made of them."""
