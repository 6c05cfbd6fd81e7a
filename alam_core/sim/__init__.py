"""Simulated worlds behind one interface, each with a scripted expert.

Importing this package starts no simulator: a world's module is imported when the world is made.
"""
