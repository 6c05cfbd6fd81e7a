"""Worlds behind one interface, each with a scripted expert. Importing this package starts no
simulator.
"""
