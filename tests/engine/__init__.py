"""The command against a real engine: llama.cpp's server with a small trained model."""
