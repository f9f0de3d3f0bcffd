"""What the user asked for: tasks, task files, YAML."""
