"""Facts of models and machines, and what follows from them: sizes, what fits, and bounds of the speed."""
