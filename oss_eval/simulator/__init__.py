"""An OpenAI-compatible server with a stated service model and a truth log."""
