"""The AgileX Piper arm: controller, hardware backend on the manufacturer's SDK, and an emulator of
the arm on a CAN bus.
"""
