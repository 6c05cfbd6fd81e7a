"""The demo: the shipped policy runs its task in simulation, is filmed and counted."""
