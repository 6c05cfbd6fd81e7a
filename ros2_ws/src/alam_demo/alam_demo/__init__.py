"""The demo: the shipped policy does its task several times, filmed and counted."""
