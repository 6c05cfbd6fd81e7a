"""The entry points of the nodes."""

from alam_common.stopping import entry

camera_sync = entry("alam_perception.camera_sync")
latent_encoder = entry("alam_perception.latent_encoder")
