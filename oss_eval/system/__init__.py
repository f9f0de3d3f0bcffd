"""The operating system: signals, child processes, environment, redaction."""
