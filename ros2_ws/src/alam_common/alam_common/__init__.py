"""Code that all ALAM nodes share."""
