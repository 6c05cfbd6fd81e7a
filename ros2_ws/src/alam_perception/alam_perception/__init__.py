"""Nodes that look: camera_sync and latent_encoder."""
