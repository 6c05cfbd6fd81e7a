"""The AgileX Piper arm: controller, hardware backend over the vendor's SDK, and an emulator of its
CAN bus.
"""
