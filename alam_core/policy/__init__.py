"""Stage 2: a policy that generates latent transitions and actions together by flow matching."""
