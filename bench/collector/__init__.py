"""Readings of the machine: facts about the host, memory of the worker."""
