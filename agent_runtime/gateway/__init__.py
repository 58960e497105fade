"""The OpenAI-compatible endpoint in front of the rack."""
