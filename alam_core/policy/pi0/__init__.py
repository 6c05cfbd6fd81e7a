"""pi0 as a backbone: PaliGemma encodes the observation, a second Gemma denoises the sequence.

Nothing is imported here: only ``backbone`` and ``weights`` import transformers.
"""
