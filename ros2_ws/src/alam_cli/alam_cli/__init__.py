"""The alam command: starts, inspects and checks the ALAM stack."""
