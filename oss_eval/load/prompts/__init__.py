"""The prompts of a load: random text of exact lengths, files, datasets."""
