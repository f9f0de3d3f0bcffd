"""Where samples come from: EvalScope, dataset hubs, own files."""
