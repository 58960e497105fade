"""The APIs that clients speak: how each asks, answers, streams and fails."""
