"""Readers of other data formats, one module a format; ``training/convert.py`` writes what they read
as LeRobot data sets.
"""
