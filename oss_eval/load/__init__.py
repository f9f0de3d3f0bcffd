"""The load: prompts, schedule, and the processes that send it."""
