"""Starting the stack: one description of the graph, two front ends, and the ``alam`` command."""
