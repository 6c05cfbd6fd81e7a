"""pi0 as a backbone: PaliGemma reads the observation, a second Gemma beside it denoises the
sequence.

Nothing is imported here, so that ``transformers`` is loaded only where ``backbone``, ``weights`` or
``text`` are asked for.
"""
