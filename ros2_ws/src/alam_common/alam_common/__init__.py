"""What all ALAM nodes share."""
