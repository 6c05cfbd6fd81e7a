"""The graph of nodes: its description, launch files, parameters and DDS profiles."""
