"""oss-eval: how fast and how good is a language model behind an OpenAI-compatible endpoint?"""

__version__ = "0.1.0"
