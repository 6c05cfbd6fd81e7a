"""Perception nodes: camera_sync and latent_encoder."""
