"""Readers of other data formats, one module per format; ``training/convert.py`` writes what they
read as LeRobot data sets.
"""
