"""Simulated worlds behind one interface, most with a scripted expert.

Importing this package starts no simulator: a world's module is imported when the world is made.
"""
