"""pi0 as a backbone: PaliGemma reads the observation, a second Gemma beside it denoises the sequence.

Nothing is imported here, so that only who asks for pi0 loads ``transformers``: ``config``, ``backbone``, ``weights``, ``text``.
"""
