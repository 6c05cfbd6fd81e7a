"""The small backbone, for CPUs and single GPUs."""

from alam_core.policy.small.backbone import SmallBackbone
from alam_core.policy.small.config import SmallConfig
from alam_core.policy.small.text import WORDS, WordTokenizer

__all__ = ["WORDS", "SmallBackbone", "SmallConfig", "WordTokenizer"]
