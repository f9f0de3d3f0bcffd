"""Settings: tasks, task files, YAML."""
